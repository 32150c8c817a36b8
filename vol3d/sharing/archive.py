"""Packed bundles ``NAME-VERSION.v3b``: a plain, uncompressed tar with no freedom at all.

The lock comes first, then the signature if there is one, then the files in the order of the lock, then 1,024 zero
bytes. Reading parses no tar header: the lock says which header must come next, that header is built and compared byte
by byte. So there are no links, no odd names, no sparse or extended headers, no second member of a name, and every
single byte of the file is determined by the lock and the signature. Any ``tar`` program can unpack it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from vol3d.data.atomic_write import atomic_path
from vol3d.sharing.contents import LOCK_NAME, SIGNATURE_NAME
from vol3d.sharing.lock import MAX_LOCK_BYTES, Lock, LockedFile, parse_lock
from vol3d.sharing.refusal import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SUFFIX = ".v3b"
MAX_SIGNATURE_BYTES = 64 * 1024
CHUNK_BYTES = 1024 * 1024
# Between two writes of a pull: what a kill can cost at most.
TRANSFER_BYTES = 64 * 1024
_BLOCK = tarfile.BLOCKSIZE
_END = b"\0" * (2 * _BLOCK)


@dataclass(frozen=True)
class Head:
    """The first members of an archive.

    Args:
        lock: The parsed lock.
        lock_bytes: Its bytes.
        signature: The signature file's bytes, or None if the archive is unsigned.
    """

    lock: Lock
    lock_bytes: bytes
    signature: bytes | None


def write_archive(path: Path, head: Head, open_file: Callable[[LockedFile], BinaryIO]) -> None:
    """Write a packed bundle; ``path`` appears whole or not at all.

    Args:
        path: Target, replaced if it exists.
        head: Lock and signature.
        open_file: Opens the content of a locked file.

    Raises:
        RefusedError: If a content is not what the lock says.
    """
    with atomic_path(path) as aside, aside.open("wb") as stream:
        _write_bytes(stream, LOCK_NAME, head.lock_bytes)
        if head.signature is not None:
            _write_bytes(stream, SIGNATURE_NAME, head.signature)
        for file in head.lock.files:
            stream.write(_header(file.path, file.size))
            with open_file(file) as source:
                copy_checked(source, stream, file)
            stream.write(_padding(file.size))
        stream.write(_END)


def _write_bytes(stream: BinaryIO, name: str, data: bytes) -> None:
    stream.write(_header(name, len(data)) + data + _padding(len(data)))


@contextmanager
def read_archive(path: Path) -> Iterator[tuple[Head, Iterator[tuple[LockedFile, BinaryIO]]]]:
    """Open a packed bundle: yields its head and an iterator of files with streams to read each one from.

    Each stream has to be read to its end, best with :func:`copy_checked`, before the next file is asked for.

    Raises:
        RefusedError: If any byte outside the files' contents is not what it must be.
    """
    with path.open("rb") as stream:
        lock_bytes = _read_member(stream, LOCK_NAME, MAX_LOCK_BYTES)
        lock = parse_lock(lock_bytes)
        signature = None
        if _peek_name(stream) == SIGNATURE_NAME:
            signature = _read_member(stream, SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
        yield Head(lock, lock_bytes, signature), _files(stream, lock)


def read_head(path: Path) -> Head:
    """Return lock and signature of a packed bundle; the files are not read.

    Raises:
        RefusedError: If the archive does not begin as it must.
    """
    with read_archive(path) as (head, _):
        return head


def verify_archive(path: Path) -> Head:
    """Return the head of a packed bundle after comparing every byte with it.

    Raises:
        RefusedError: If a byte is not what the lock says.
    """
    with read_archive(path) as (head, files):
        for file, stream in files:
            copy_checked(stream, None, file)
    return head


def open_range(path: Path, head: Head, file: LockedFile, offset: int = 0) -> BinaryIO:
    """Return a stream of one file of an archive from ``offset`` on; what it gives is not verified here.

    Args:
        path: The archive.
        head: Its head; where a file stands follows from the sizes before it.
        file: A file of the lock.
        offset: First byte of the file to read.
    """
    before = [len(head.lock_bytes), *([] if head.signature is None else [len(head.signature)])]
    before += [other.size for other in head.lock.files if other.path < file.path]
    stream = path.open("rb")
    stream.seek(sum(_BLOCK + size + -size % _BLOCK for size in before) + _BLOCK + offset)
    return _Bounded(stream, file.size - offset)  # type: ignore[return-value]


def copy_checked(source: BinaryIO, target: BinaryIO | None, file: LockedFile) -> None:
    """Copy exactly the content that the lock names, or only hash it if ``target`` is None.

    Raises:
        RefusedError: If size or SHA-256 differ.
    """
    digest = hashlib.sha256()
    left = file.size
    while left:
        chunk = source.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise refused("file.size", f"{file.path} must have {file.size} bytes, got {file.size - left}; get it again")
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
        left -= len(chunk)
    if source.read(1):
        raise refused("file.size", f"{file.path} must have {file.size} bytes, got more; get it again")
    if digest.hexdigest() != file.sha256:
        raise refused("file.sha256", f"{file.path} must have the sha256 of the lock, got another; get it again")


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _padding(size: int) -> bytes:
    return b"\0" * (-size % _BLOCK)


def _peek_name(stream: BinaryIO) -> str:
    name = stream.read(100)
    stream.seek(-len(name), os.SEEK_CUR)
    return name.rstrip(b"\0").decode("ascii", "replace")


def _read_member(stream: BinaryIO, name: str, limit: int) -> bytes:
    header = stream.read(_BLOCK)
    digits = header[124:135]
    size = int(digits, 8) if len(digits) == 11 and all(c in b"01234567" for c in digits) else -1
    if not 0 < size <= limit or header != _header(name, size):
        raise refused("archive.header", f"archive must begin with a plain {name}, got other bytes; get it again")
    data = stream.read(size)
    if len(data) != size or stream.read(-size % _BLOCK) != _padding(size):
        raise refused("archive.short", f"archive must hold {name} whole, got its beginning; get it again")
    return data


class _Bounded:
    """Reads the next ``size`` bytes of a stream and no more."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.left = size

    def read(self, size: int) -> bytes:
        data = self.stream.read(min(size, self.left))
        self.left -= len(data)
        return data

    def __enter__(self) -> _Bounded:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


def _files(stream: BinaryIO, lock: Lock) -> Iterator[tuple[LockedFile, BinaryIO]]:
    for file in lock.files:
        if stream.read(_BLOCK) != _header(file.path, file.size):
            raise refused("archive.header", f"archive must go on with {file.path}, got other bytes; get it again")
        yield file, _Bounded(stream, file.size)  # type: ignore[misc]
        if stream.read(-file.size % _BLOCK) != _padding(file.size):
            raise refused("archive.padding", f"archive must have zeros behind {file.path}, got other bytes")
    if stream.read(len(_END) + 1) != _END:
        raise refused("archive.end", "archive must end with 1024 zero bytes behind its files, got others; get it again")
