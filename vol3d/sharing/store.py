"""The bundles installed on this machine.

::

    ~/.vol3d/                        or $VOL3D_HOME
    ├── trust.json credentials.json
    └── store/
        ├── busy                     held (flock) by whoever changes the store
        ├── seen.json                name → version → lock id, never forgotten: detects moved versions and rollbacks
        ├── blobs/<sha256>           content, each whole and verified; <sha256>.part while it is fetched
        └── bundles/NAME/
            ├── VERSION/
            │   ├── NAME/            a plain MONAI folder, plus its lock and signature
            │   └── receipt.json     size and SHA-256 of what was derived from its files here (models/model.pt)
            └── current → VERSION

A version folder is built aside, synced and renamed, and ``current`` is replaced by a rename: at any moment, and after
a kill at any moment, each version is whole or absent and ``current`` points to a whole one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from vol3d.data.atomic_write import ASIDE_SUFFIX, atomic_path
from vol3d.sharing.archive import CHUNK_BYTES
from vol3d.sharing.contents import LOCK_NAME, SIGNATURE_NAME
from vol3d.sharing.lock import NAME, VERSION, Lock, LockedFile, parse_lock, version_key
from vol3d.sharing.refusal import lacking, refused, shorten
from vol3d.sharing.strict_documents import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vol3d.sharing.archive import Head

CURRENT = "current"
RECEIPT = "receipt.json"
_ASIDE = ".building-"
# Results that MONAI writes below a bundle by default; nothing is ever loaded from there.
OUTPUT_FOLDERS = frozenset({"eval", "runs"})


@dataclass(frozen=True)
class Installed:
    """One installed version.

    Args:
        name: Bundle name.
        version: Version.
        path: The bundle's folder.
        is_current: Does the name alone mean this version?
    """

    name: str
    version: str
    path: Path
    is_current: bool


class Store:
    """The store below a folder; nothing is created before something is installed.

    Args:
        home: The folder of :func:`vol3d.sharing.trust.share_home`.
    """

    def __init__(self, home: Path) -> None:
        self.root = home / "store"
        self.bundles = self.root / "bundles"
        self.blobs = self.root / "blobs"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store's lock; waits for another process. The kernel frees it if the holder dies.

        Raises:
            RequirementError: If this is not a POSIX system.
        """
        try:
            import fcntl  # noqa: PLC0415 - predict has to start on Windows too, it only reads the store
        except ImportError:
            raise lacking("store.system", "store must be on a POSIX system, got another; use Linux or macOS") from None
        self.root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.bundles, self.blobs):
            folder.mkdir(parents=True, exist_ok=True)
        with (self.root / "busy").open("wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            self._clear_leftovers()
            yield

    def _clear_leftovers(self) -> None:
        for leftover in self.bundles.glob(f"*/{_ASIDE}*"):
            shutil.rmtree(leftover)
        for place in (self.root, *self.bundles.glob("*")):
            for leftover in place.glob(f".*{ASIDE_SUFFIX}"):
                leftover.unlink()

    def installed(self) -> list[Installed]:
        """Return the installed versions by name, oldest first."""
        found = []
        for folder in sorted(self.bundles.glob("*/*")):
            name, version = folder.parent.name, folder.name
            if NAME.fullmatch(name) and VERSION.fullmatch(version):
                found.append(Installed(name, version, folder / name, self.current(name) == version))
        return sorted(found, key=lambda item: (item.name, version_key(item.version)))

    def current(self, name: str) -> str | None:
        """Return the version that the name alone means, or None."""
        link = self.bundles / name / CURRENT
        return str(link.readlink()) if link.is_symlink() else None

    def find(self, title: str) -> Path:
        """Return the folder of ``NAME`` (its current version) or ``NAME@VERSION``.

        Raises:
            RefusedError: If it is not installed.
        """
        name, version = split_title(title)
        version = version or self.current(name)
        folder = self.folder(name, str(version))
        if version is None or not folder.is_dir():
            raise refused("store.missing", f"{title} must be installed, got no such bundle; see `vol3d share list`")
        return folder

    def folder(self, name: str, version: str) -> Path:
        """Return where a version is or would be installed."""
        return self.bundles / name / version / name

    def holds(self, path: Path) -> bool:
        """Tell whether a folder, given by any path, lies in this store."""
        return self.bundles.resolve() in path.resolve().parents

    def use(self, title: str) -> None:
        """Let the name mean this version; ``title`` is ``NAME@VERSION``."""
        folder = self.find(title).parent
        with atomic_path(folder.parent / CURRENT, is_durable=False) as aside:
            aside.symlink_to(folder.name)
        sync(folder.parent)

    def seen(self) -> dict[str, dict[str, str]]:
        """Return every version ever installed: name to version to lock id."""
        path = self.root / "seen.json"
        return parse_json(path.read_bytes(), "seen.json") if path.exists() else {}

    def remember(self, lock: Lock) -> None:
        """Record that this version is this lock, for good."""
        seen = self.seen()
        seen.setdefault(lock.name, {})[lock.version] = lock.id
        with atomic_path(self.root / "seen.json") as aside:
            aside.write_text(json.dumps(seen, indent=1, sort_keys=True), encoding="utf-8")

    def derived(self, folder: Path) -> tuple[LockedFile, ...]:
        """Return what was derived here from the files of an installed bundle; ``folder`` is the bundle's.

        Raises:
            RefusedError: If the receipt is damaged.
        """
        path = folder.parent / RECEIPT
        content = parse_json(path.read_bytes(), path.name) if path.exists() else []
        try:
            return tuple(LockedFile(**entry) for entry in content)
        except TypeError:
            raise refused("store.receipt", f"{path.name} must list files, got other entries; pull it again") from None

    def begin(self, head: Head) -> Path:
        """Return a new folder aside with lock, signature and the files of the blobs; see :meth:`finish`."""
        aside = self.bundles / head.lock.name / f"{_ASIDE}{head.lock.version}" / head.lock.name
        aside.mkdir(parents=True)
        (aside / LOCK_NAME).write_bytes(head.lock_bytes)
        if head.signature is not None:
            (aside / SIGNATURE_NAME).write_bytes(head.signature)
        for file in head.lock.files:
            target = aside / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            self._place(self.blobs / file.sha256, target)
        return aside

    def finish(self, aside: Path, lock: Lock, derived: list[Path]) -> Path:
        """Sync what :meth:`begin` made, write its receipt and rename it to its version."""
        receipt = [LockedFile(path.relative_to(aside).as_posix(), *hash_file(path), "derived") for path in derived]
        (aside.parent / RECEIPT).write_text(json.dumps([asdict(file) for file in receipt]), encoding="utf-8")
        for path in (aside.parent, *aside.parent.rglob("*")):
            sync(path)
        folder = self.folder(lock.name, lock.version).parent
        if folder.exists():
            # Only a damaged version is ever replaced: pull keeps one that verifies.
            folder.rename(folder.with_name(f"{_ASIDE}old-{lock.version}"))
        aside.parent.rename(folder)
        sync(folder.parent)
        return folder / lock.name

    def remove(self, title: str) -> None:
        """Remove ``NAME@VERSION``; the version stays known in ``seen.json``.

        Raises:
            RefusedError: If it is not installed, or is the current one while others are there.
        """
        name, version = split_title(title)
        folder = self.find(title).parent
        others = [item for item in self.installed() if item.name == name and item.version != version]
        if version is None or (self.current(name) == version and others):
            raise refused("store.current", f"{title} must be NAME@VERSION and not current; `use` another version first")
        if not others:
            (folder.parent / CURRENT).unlink(missing_ok=True)
        doomed = folder.with_name(f"{_ASIDE}{folder.name}")
        folder.rename(doomed)
        shutil.rmtree(doomed)

    def collect_garbage(self) -> int:
        """Delete content that no installed version needs; returns the bytes freed."""
        needed: set[str] = set()
        for item in self.installed():
            lock = parse_lock((item.path / LOCK_NAME).read_bytes())
            needed |= {file.sha256 for file in lock.files}
        freed = 0
        for path in [path for path in self.blobs.iterdir() if path.name not in needed]:
            freed += path.stat().st_size
            path.unlink()
        return freed

    @staticmethod
    def _place(blob: Path, target: Path) -> None:
        # A link costs no space; a store on a file system without links gets a copy.
        try:
            target.hardlink_to(blob)
        except OSError:
            shutil.copyfile(blob, target)


def split_title(title: str) -> tuple[str, str | None]:
    """Split ``NAME`` or ``NAME@VERSION``.

    Raises:
        RefusedError: If either part is not plain.
    """
    name, at, version = title.partition("@")
    if not NAME.fullmatch(name) or (at and not VERSION.fullmatch(version)):
        raise refused("store.title", f"bundle must be NAME or NAME@VERSION, got {shorten(title)}; see `list`")
    return name, version or None


def hash_file(path: Path) -> tuple[int, str]:
    """Return size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
