"""Pull: from a remote that is not trusted into the store, so that a kill at any moment harms nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vol3d.errors import RefusedError
from vol3d.sharing.lock import Lock, LockedFile, version_key
from vol3d.sharing.refusal import incomplete, refused
from vol3d.sharing.store import Store, hash_file, split_title
from vol3d.sharing.verify import check_level, read_folder_head, verify_folder, verify_head
from vol3d.sharing.weights import rebuild_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from vol3d.sharing.archive import Head
    from vol3d.sharing.remote import Remote
    from vol3d.sharing.trust import Trust


@dataclass(frozen=True)
class Pulled:
    """The outcome of a pull.

    Args:
        lock: The lock of the installed version.
        path: Its folder.
        signer: Local name of the signer; None at level ``integrity``.
        fetched_bytes: Content bytes that came over the network.
    """

    lock: Lock
    path: Path
    signer: str | None
    fetched_bytes: int


@dataclass(frozen=True)
class PullOptions:
    """What the user asks of a pull.

    Args:
        level: Level that has to be reached.
        lock_id: The one lock id that is accepted, or None.
        allow_older: Accept a version older than one that was installed here before.
    """

    level: str = "data-only"
    lock_id: str | None = None
    allow_older: bool = False


def pull(remote: Remote, title: str, store: Store, trust: Trust, options: PullOptions) -> Pulled:
    """Install ``NAME`` (its newest version) or ``NAME@VERSION`` and make it the current one.

    Raises:
        RefusedError: If the bundle does not reach the level, is another one than was seen under this version, or is
            older than the newest one seen.
        IncompleteError: If the remote stopped part-way or the disk is full; the next pull goes on where this stopped.
    """
    check_level(options.level)
    name, version = split_title(title)
    if version is None:
        versions = remote.versions(name)
        if not versions:
            raise refused("remote.missing", f"{name} must be in the remote, got no version of it; see its list")
        version = versions[-1]
    head = remote.head(name, version)
    if (head.lock.name, head.lock.version) != (name, version):
        raise refused("pull.title", f"remote must give {name}@{version}, got {head.lock.title}; report it")
    if options.lock_id not in (None, head.lock.id):
        raise refused("pull.pinned", f"{name}@{version} must have the lock id you gave, got {head.lock.id}; report it")
    signer = verify_head(head, options.level, trust)
    with store.locked():
        _check_history(head.lock, store, options)
        folder = store.folder(name, version)
        fetched = 0
        if not _is_whole(folder, head, store, trust):
            try:
                fetched = sum(_fetch(remote, head, file, store) for file in head.lock.files)
                folder = _install(head, store, trust, options.level)
            except OSError as error:
                reason = f"got {error.strerror or error}; make room and pull again to go on"
                raise incomplete("pull.disk", f"store must be writable and large enough, {reason}") from error
        store.use(f"{name}@{version}")
    return Pulled(head.lock, folder, signer, fetched)


def _check_history(lock: Lock, store: Store, options: PullOptions) -> None:
    seen = store.seen().get(lock.name, {})
    if seen.get(lock.version, lock.id) != lock.id:
        raise refused("pull.moved", f"{lock.title} must be the bundle seen before, got another; ask its maker why")
    newest = max(seen, key=version_key, default=lock.version)
    if version_key(lock.version) < version_key(newest) and not options.allow_older:
        hint = f"`use {lock.name}@{newest}` or pass --allow-older"
        raise refused("pull.rollback", f"{lock.title} must not be older than the {newest} seen here; {hint}")


def _is_whole(folder: Path, head: Head, store: Store, trust: Trust) -> bool:
    if not folder.is_dir():
        return False
    try:
        verify_folder(folder, "integrity", trust, store.derived(folder))
        # With its signature: the same bundle may come again, signed by another key.
        return read_folder_head(folder) == head
    except (RefusedError, OSError):
        return False


def _fetch(remote: Remote, head: Head, file: LockedFile, store: Store) -> int:
    """Bring the content of a file into the blobs; return the bytes that the remote gave."""
    blob = store.blobs / file.sha256
    if blob.is_file():
        if hash_file(blob) == (file.size, file.sha256):
            return 0
        blob.unlink()
    part = store.blobs / f"{file.sha256}.part"
    offset = part.stat().st_size if part.exists() else 0
    fetched = 0
    if offset:
        # What an earlier pull left is kept only if the whole content verifies with it; else once more from the start.
        fetched += _append(remote, head, file, part)
        if hash_file(part) == (file.size, file.sha256):
            part.rename(blob)
            return fetched
        part.unlink()
    fetched += _append(remote, head, file, part)
    if hash_file(part) != (file.size, file.sha256):
        part.unlink()
        raise refused("pull.content", f"{file.path} must have the sha256 of the lock, got another; report the remote")
    part.rename(blob)
    return fetched


def _append(remote: Remote, head: Head, file: LockedFile, part: Path) -> int:
    fetched = 0
    # Unbuffered: what has come is on the disk's cache at once and survives a kill.
    with part.open("ab", buffering=0) as stream:
        for given in remote.read(head, file, stream.tell()):
            chunk = given
            fetched += len(chunk)
            if stream.tell() + len(chunk) > file.size:
                raise refused("pull.size", f"{file.path} must have {file.size} bytes, got more; report the remote")
            while chunk:
                chunk = chunk[stream.write(chunk) :]
        if stream.tell() < file.size:
            got = f"{stream.tell()} of {file.size} bytes"
            raise incomplete("pull.short", f"{file.path} must come whole, got {got}; pull again to go on")
    return fetched


def _install(head: Head, store: Store, trust: Trust, level: str) -> Path:
    aside = store.begin(head)
    try:
        verify_folder(aside, level, trust)
        derived = []
        for file in head.lock.files:
            if file.kind == "weights":
                checkpoint = (aside / file.path).with_suffix(".pt")
                rebuild_checkpoint(aside / file.path, checkpoint)
                derived.append(checkpoint)
        # Before the folder appears: a run in between has to find both.
        store.remember(head.lock)
        return store.finish(aside, head.lock, derived)
    finally:
        # Gone already if it was renamed to its version.
        shutil.rmtree(aside.parent, ignore_errors=True)
