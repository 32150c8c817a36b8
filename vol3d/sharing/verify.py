"""Verification of a packed or installed bundle up to a level.

=============  ========================================================================================================
level          means
=============  ========================================================================================================
``integrity``  every byte is the one that the lock names; says nothing about who made it
``signed``     and a signer this site trusts for bundles of this name has signed the lock
``data-only``  and the audit passes with this site's policy and there is no own code (default for everything that runs)
``scripts``    and, instead of the audit: the signer may bring code, and a person here approved this very lock id
=============  ========================================================================================================
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vol3d.errors import UsageError
from vol3d.sharing.archive import CHUNK_BYTES, MAX_SIGNATURE_BYTES, Head, copy_checked
from vol3d.sharing.audit import audit_bundle
from vol3d.sharing.contents import LOCK_NAME, SIGNATURE_NAME
from vol3d.sharing.lock import MAX_LOCK_BYTES, Lock, LockedFile, parse_lock
from vol3d.sharing.refusal import refuse_findings, refused, shorten
from vol3d.sharing.signature import verify_lock
from vol3d.sharing.store import OUTPUT_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vol3d.sharing.trust import Trust

LEVELS = ("integrity", "signed", "data-only", "scripts")


@dataclass(frozen=True)
class Verified:
    """The outcome of a verification.

    Args:
        lock: The lock.
        level: The level that holds.
        signer: Local name of the signer; None at level ``integrity``.
    """

    lock: Lock
    level: str
    signer: str | None


def check_level(level: str) -> str:
    """Return a valid level.

    Raises:
        UsageError: If it is none of ``LEVELS``.
    """
    if level not in LEVELS:
        raise UsageError(f"level must be one of {', '.join(LEVELS)}, got {shorten(level)}; choose one")
    return level


def verify_head(head: Head, level: str, trust: Trust) -> str | None:
    """Return the signer of a lock whose files need not be here yet, or None at level ``integrity``.

    Raises:
        RefusedError: If signature, trust or approval do not reach the level.
    """
    lock = head.lock
    if check_level(level) == "integrity":
        return None
    signer = verify_lock(head.lock_bytes, head.signature, lock.name, trust)
    if level == "data-only" and lock.has_scripts:
        raise refused("level.scripts", f"{lock.title} must be data-only, got own code; see level scripts in the docs")
    if level == "scripts":
        if not trust.signers[signer].scripts:
            raise refused("level.signer", f"{signer} must be trusted for scripts, got trust for data only; see `trust`")
        if lock.id not in trust.approvals:
            raise refused("level.approval", f"{lock.title} must be approved by a person here, got none; see `approve`")
    return signer


def verify_folder(folder: Path, level: str, trust: Trust, derived: Iterable[LockedFile] = ()) -> Verified:
    """Verify an unpacked bundle; everything in it is hashed before any of it is parsed.

    Args:
        folder: The bundle, with its lock.
        level: One of ``LEVELS``.
        trust: This site's trust file.
        derived: Files that were made here from locked ones.

    Raises:
        RefusedError: If anything is missing, extra or other than locked, or the level is not reached.
    """
    check_level(level)
    head = read_folder_head(folder)
    expected = {file.path: file for file in (*head.lock.files, *derived)}
    _check_names(folder, set(expected), allow_outputs=level != "scripts")
    signer = verify_head(head, level, trust)
    for file in expected.values():
        with (folder / file.path).open("rb", buffering=CHUNK_BYTES) as stream:
            copy_checked(stream, None, file)
    if level == "data-only":
        refuse_findings(audit_bundle(folder))
    return Verified(head.lock, level, signer)


def read_folder_head(folder: Path) -> Head:
    """Return lock and signature of an unpacked bundle.

    Raises:
        RefusedError: If there is no lock, or it is not valid.
    """
    path, signature = folder / LOCK_NAME, folder / SIGNATURE_NAME
    if path.is_symlink() or not path.is_file():
        raise refused("lock.missing", f"{folder.name} must have a {LOCK_NAME}, got none; pull it or pack it")
    data = _read_at_most(path, MAX_LOCK_BYTES)
    return Head(parse_lock(data), data, _read_at_most(signature, MAX_SIGNATURE_BYTES) if signature.is_file() else None)


def _read_at_most(path: Path, limit: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(limit + 1)


def _check_names(folder: Path, expected: set[str], *, allow_outputs: bool) -> None:
    found = set()
    for here, folders, names in os.walk(folder):
        for name in folders + names:
            path = Path(here, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise refused("verify.link", f"bundle must have no links, got {shorten(relative)}; pull it again")
            if name in names and not path.is_file():
                raise refused("verify.special", f"bundle must have plain files, got {shorten(relative)}; pull it again")
            if name in names:
                found.add(relative)
        if Path(here) == folder and allow_outputs:
            folders[:] = [name for name in folders if name not in OUTPUT_FOLDERS]
    found -= {LOCK_NAME, SIGNATURE_NAME}
    if expected - found:
        raise refused("verify.missing", f"bundle must have {shorten(min(expected - found))}, got none; pull it again")
    if found - expected:
        raise refused(
            "verify.extra", f"bundle must have no other files, got {shorten(min(found - expected))}; remove it"
        )
