"""The disk tier of the case cache: one file per case in a folder that processes and training runs share.

* **Writing** is atomic, so there is no moment at which a kill leaves a file that could be taken for a whole one.
* **Filling** by several processes at once: whoever computes a key holds one of 256 advisory file locks, the others
  wait and then read. The kernel frees the lock of a killed process. Where locks do not work (some network file
  systems, Windows) both compute, and both write the same file.
* **Checking**: the checksum of a file is tested when a process first opens it; after that only its header, for as
  long as inode, size and mtime stay.
* **Eviction**: least recently used first, by the atime that every read sets explicitly (mount options such as
  ``noatime`` do not matter). A file that is being read stays readable until its reader lets go.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING

from vol3d.data.atomic_write import ASIDE_SUFFIX
from vol3d.data.cache_entries import entry_path, list_entries
from vol3d.data.cache_file import CacheFileError, read_cache_file, write_cache_file
from vol3d.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vol3d.data.canonical_value import Json
    from vol3d.data.packed_case import PackedCase

logger = logging.getLogger(__name__)

ABANDONED_S = 3600.0
"""No write of one case takes an hour: an older file aside was left behind by a kill."""

_TOUCH_S = 60.0
_RESCAN_FRACTION = 0.02

_Identity = tuple[int, int, int]


class DiskTier:
    """Cached cases in a folder.

    Args:
        folder: Made when missing, readable by its owner only: the cases are as private as the scans.
        max_bytes: Budget of all files together; the least recently used ones go when it is exceeded.

    Raises:
        OutputError: If the folder cannot be made or written.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._verified: dict[str, _Identity] = {}
        self._total: int | None = None
        self._unscanned = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"cache_dir must be writable, got {folder}: {error.strerror}; choose another") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"cache_dir must be writable, got {folder}; choose another folder")

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return entry_path(self.folder, key)

    def size(self, key: str) -> int | None:
        """Return the bytes of the file of this key, or None without one; whether it is whole shows when it is read."""
        try:
            return self.path(key).stat().st_size
        except OSError:
            return None

    def read(self, key: str) -> PackedCase | None:
        """Return a case that is mapped from its file, or None if there is none; a damaged file is deleted."""
        path = self.path(key)
        try:
            stat = path.stat()
            identity = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            case = read_cache_file(path, key, is_verified=self._verified.get(key) == identity)
            self._verified[key] = identity
            if time.time() - stat.st_atime > _TOUCH_S:
                os.utime(path, ns=(time.time_ns(), stat.st_mtime_ns))
        except FileNotFoundError:
            return None
        except CacheFileError as error:
            logger.warning("%s (%s)", error, path.name)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        except OSError as error:
            logger.warning("cache file must be readable, got %s (%s); it is computed anew", error.strerror, path.name)
            return None
        return case

    def write(self, key: str, case: PackedCase, record: Json) -> None:
        """Store a case; a full disk or a lost permission is logged, and the run goes on without."""
        try:
            size = write_cache_file(self.path(key), key, case, record)
        except OSError as error:
            logger.warning("cache file must be writable, got %s (%s); it is not kept on disk", error.strerror, key)
            return
        if size > self.max_bytes:
            self.path(key).unlink(missing_ok=True)
            logger.warning(
                "disk_bytes must hold at least one case, got %d for a case of %d bytes; it is not kept on disk",
                self.max_bytes,
                size,
            )
            return
        self._make_room(size)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Let one process or thread at a time work on a key (and on the few that share its lock file)."""
        if fcntl is None:
            yield
            return
        # Every holder opens the file anew: the lock belongs to the open file, so it works between threads too.
        path = self.folder / "locks" / key[:2]
        try:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            logger.warning("cache lock must be writable, got %s; the case may be computed twice", error.strerror)
            yield
            return
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            with contextlib.suppress(OSError):
                # A forked worker holds a copy of the handle: closing alone would leave the lock with it.
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)

    def _make_room(self, num_new_bytes: int) -> None:
        """Evict when the folder is over its budget; it is scanned only when that is possible."""
        self._unscanned += num_new_bytes
        is_known = self._total is not None and self._unscanned < _RESCAN_FRACTION * self.max_bytes
        if is_known and (self._total or 0) + self._unscanned <= self.max_bytes:
            return
        self._sweep_abandoned()
        entries = list_entries(self.folder)
        total = sum(stat.st_size for _, stat in entries)
        # The newest entry is last and never goes: it fits, or it would have gone already.
        for path, stat in entries[:-1]:
            if total <= self.max_bytes:
                break
            with contextlib.suppress(OSError):  # evicted by another process, or open on Windows
                path.unlink()
                total -= stat.st_size
        self._total, self._unscanned = total, 0

    def _sweep_abandoned(self) -> None:
        for path in self.folder.glob(f"[0-9a-f][0-9a-f]/.*{ASIDE_SUFFIX}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()
