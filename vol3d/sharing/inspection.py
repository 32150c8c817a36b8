"""Looks at one or two bundles wherever they are: as a packed file, in a folder or in the store."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vol3d.sharing.archive import SUFFIX, copy_checked, read_archive
from vol3d.sharing.contents import LOCK_NAME, SIGNATURE_NAME
from vol3d.sharing.difference import describe_difference
from vol3d.sharing.probe import check_probe
from vol3d.sharing.refusal import refused
from vol3d.sharing.store import Store, split_title
from vol3d.sharing.trust import load_trust, share_home
from vol3d.sharing.verify import Verified, verify_folder, verify_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vol3d.sharing.lock import LockedFile


@dataclass(frozen=True)
class Inspected:
    """The outcome of an inspection.

    Args:
        verified: Lock, level and signer.
        probe: What the probe gave, or None if it was not asked for.
    """

    verified: Verified
    probe: str | None


def inspect_bundle(text: str, level: str, *, run_probe: bool = False) -> Inspected:
    """Verify a packed bundle, a folder with a lock, or an installed ``NAME[@VERSION]``.

    Raises:
        RefusedError: If it does not reach the level, or the probe gives another output.
    """
    home = share_home()
    trust = load_trust(home / "trust.json")
    with _unpacked(text, level) as (folder, derived):
        verified = verify_folder(folder, level, trust, derived)
        return Inspected(verified, _run_probe(folder, verified) if run_probe else None)


def compare(old: str, new: str) -> list[str]:
    """Return in words what changed between two packed or installed bundles, each verified for integrity.

    Raises:
        RefusedError: If one of them is not what its lock says.
    """
    trust = load_trust(share_home() / "trust.json")
    with _unpacked(old, "integrity") as (a, derived_a), _unpacked(new, "integrity") as (b, derived_b):
        lock_a = verify_folder(a, "integrity", trust, derived_a).lock
        lock_b = verify_folder(b, "integrity", trust, derived_b).lock

        def read_a(file: LockedFile) -> bytes:
            return (a / file.path).read_bytes()

        def read_b(file: LockedFile) -> bytes:
            return (b / file.path).read_bytes()

        return describe_difference(lock_a, read_a, lock_b, read_b)


def use_version(title: str) -> None:
    """Make an installed version the current one after verifying its bytes.

    Raises:
        RefusedError: If it is not installed or damaged.
    """
    home = share_home()
    store = Store(home)
    if split_title(title)[1] is None:
        raise refused("store.title", f"version must be given, got {title}; write NAME@VERSION")
    with store.locked():
        folder = store.find(title)
        verify_folder(folder, "integrity", load_trust(home / "trust.json"), store.derived(folder))
        store.use(title)


@contextmanager
def _unpacked(text: str, level: str) -> Iterator[tuple[Path, tuple[LockedFile, ...]]]:
    """Yield the folder of a bundle and what was derived in it; a packed one is unpacked into a temporary folder."""
    path = Path(text)
    if path.is_dir():
        store = Store(share_home())
        yield path, store.derived(path.resolve()) if store.holds(path) else ()
    elif text.endswith(SUFFIX) and path.is_file():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "bundle")
            _unpack(path, folder, level)
            yield folder, ()
    else:
        store = Store(share_home())
        folder = store.find(text)
        yield folder, store.derived(folder)


def _unpack(archive: Path, folder: Path, level: str) -> None:
    with read_archive(archive) as (head, files):
        # Signature first: nothing of a stranger's bundle is written if nobody here trusts the stranger.
        verify_head(head, level, load_trust(share_home() / "trust.json"))
        free = shutil.disk_usage(folder.parent).free
        if sum(file.size for file in head.lock.files) > free:
            raise refused("archive.space", f"{head.lock.title} must fit on the disk, got {free} free bytes; free some")
        folder.mkdir()
        (folder / LOCK_NAME).write_bytes(head.lock_bytes)
        if head.signature is not None:
            (folder / SIGNATURE_NAME).write_bytes(head.signature)
        for file, stream in files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                copy_checked(stream, out, file)


def _run_probe(folder: Path, verified: Verified) -> str:
    lock = verified.lock
    if verified.level not in ("data-only", "scripts"):
        raise refused("probe.level", f"probe must have level data-only, got {verified.level}; verify at that level")
    if lock.probe is None:
        raise refused("probe.none", f"{lock.title} must have a probe in its lock, got none; run it on a known volume")
    (weights,) = [file.path for file in lock.files if file.kind == "weights"]
    return check_probe(folder, folder / weights, lock.probe)
