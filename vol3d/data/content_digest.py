"""SHA-256 of input files and DICOM folders, remembered for as long as the file system says nothing changed.

A digest is remembered with the *signature* of its file: device, inode, size, mtime and ctime. mtime alone can be
set back by anyone (``os.utime``, ``cp -p``, ``rsync -t``); ctime cannot, and a file that was renamed over the old
one brings another inode. A file changed within the last two seconds is hashed but not remembered, because a clock
that ticks slowly could give its next change the same signature ("racily clean" in git's words). On Windows ctime is
the time of creation, so there a replacement that keeps size and mtime and is written in place goes unnoticed.

The store holds one small file per path, written aside and renamed: processes share it without locks, a kill leaves
either the old record or the new one, and an unreadable record only costs another hash. Record names are SHA-256 of
the absolute path, so that no name of a patient appears.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from stat import S_ISDIR
from typing import TYPE_CHECKING

from vol3d.data.atomic_write import atomic_path
from vol3d.errors import VolumeReadError

if TYPE_CHECKING:
    from pathlib import Path

SETTLE_NS = 2_000_000_000
"""A file younger than this may change again without a new timestamp: FAT keeps times in steps of two seconds."""

_Stamp = tuple[int, int, int, int, int]


def path_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the absolute path: how the cache names a path without showing it."""
    return hashlib.sha256(os.path.abspath(path).encode("utf-8", "surrogateescape")).hexdigest()  # noqa: PTH100


class ContentDigests:
    """Digests of file contents, remembered in memory and in a folder that processes share.

    Args:
        folder: Where the records live; None remembers within this process only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._remembered: dict[str, tuple[str, str]] = {}

    def digest(self, path: str | os.PathLike[str]) -> str:
        """Return the SHA-256 (hex) of a file, or of the names and contents of all files below a folder.

        Raises:
            VolumeReadError: If the path cannot be read, or changes while it is read.
        """
        name = os.fspath(path)
        try:
            signature = file_signature(name)
            known = self._remembered.get(name) or self._read_record(name)
            if known is not None and known[0] == signature:
                self._remembered[name] = known
                return known[1]
            digest, is_settled = _hash_settled(name, signature)
        except OSError as error:
            raise VolumeReadError(f"input must be readable, got {name}: {error.strerror}; check the path") from error
        if is_settled:
            self._remembered[name] = (signature, digest)
            self._write_record(name, signature, digest)
        return digest

    def _record_path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{path_digest(name)}.json"

    def _read_record(self, name: str) -> tuple[str, str] | None:
        record_path = self._record_path(name)
        if record_path is None:
            return None
        try:
            signature, digest = json.loads(record_path.read_bytes())
        except (OSError, ValueError, TypeError):
            return None
        return (signature, digest) if isinstance(signature, str) and _is_sha256(digest) else None

    def _write_record(self, name: str, signature: str, digest: str) -> None:
        record_path = self._record_path(name)
        if record_path is not None:
            with atomic_path(record_path, is_durable=False) as aside:
                aside.write_text(json.dumps([signature, digest]))


def _is_sha256(digest: object) -> bool:
    return isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")


def _stamp(stat: os.stat_result) -> _Stamp:
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _files_of(name: str) -> list[str]:
    """Return the files of a folder in a fixed order, or the file itself."""
    if not os.path.isdir(name):  # noqa: PTH112
        return [name]
    return sorted(os.path.join(root, file) for root, _, files in os.walk(name) for file in files)  # noqa: PTH118


def file_signature(path: str | os.PathLike[str]) -> str:
    """Return what must change when the content changes; for a folder, over every file below it.

    Raises:
        OSError: If the path cannot be looked at.
    """
    name = os.fspath(path)
    stat = os.stat(name)  # noqa: PTH116
    if S_ISDIR(stat.st_mode):
        stamps = [(os.path.relpath(file, name), _stamp(os.stat(file))) for file in _files_of(name)]  # noqa: PTH116
    else:
        stamps = [(".", _stamp(stat))]
    return hashlib.sha256(repr(stamps).encode("utf-8", "surrogateescape")).hexdigest()


def _hash_settled(name: str, signature: str) -> tuple[str, bool]:
    """Return the digest of the content, and whether the signature can be trusted to stand for it."""
    digest = hashlib.sha256()
    youngest_ns = 0
    is_folder = os.path.isdir(name)  # noqa: PTH112
    for file in _files_of(name):
        with open(file, "rb") as stream:  # noqa: PTH123
            stat = os.fstat(stream.fileno())
            youngest_ns = max(youngest_ns, stat.st_mtime_ns, stat.st_ctime_ns)
            if is_folder:
                inner = os.path.relpath(file, name).encode("utf-8", "surrogateescape")
                digest.update(len(inner).to_bytes(8, "little") + inner + stat.st_size.to_bytes(8, "little"))
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    if file_signature(name) != signature:
        raise VolumeReadError(f"input must stay as it is while it is read, got changes in {name}; run again")
    return digest.hexdigest(), time.time_ns() - youngest_ns > SETTLE_NS
