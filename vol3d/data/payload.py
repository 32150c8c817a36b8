"""Bounded reading of a file's voxel bytes: what the header declares decides, whatever the file inflates to."""

from __future__ import annotations

import io
import os
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from isal import igzip, isal_zlib

from vol3d.errors import VolumeReadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

Codec = Literal["raw", "gzip", "zlib"]

GZIP_MAGIC = b"\x1f\x8b"

# Deflate spends at least one bit on a match of at most 258 bytes (RFC 1951): 1032 bytes out per byte in. A header that
# declares more than its file can inflate to is refused before the memory for it is asked for.
MAX_DEFLATE_RATIO = 1032

# Some writers pad the file; reading that far also makes gzip compare its checksum. Further is never read.
MAX_PADDING_BYTES = 64 * 1024

_CHUNK_BYTES = 2**20
# isal's type stubs declare the class as one of its instances.
_ISAL_ERROR = cast("type[Exception]", isal_zlib.IsalError)


def read_payload(
    path: Path, num_bytes: int, *, offset: int = 0, skip: int = 0, codec: Codec = "raw"
) -> NDArray[np.uint8]:
    """Read exactly the bytes that a header declares.

    Args:
        path: File that holds the voxels.
        num_bytes: Bytes to return.
        offset: Bytes of the file before its data begin.
        skip: Bytes at the start of the (inflated) data that are left out.
        codec: How the data are packed; ``zlib`` also takes gzip data.

    Returns:
        A new, writable array of ``num_bytes`` bytes.

    Raises:
        VolumeReadError: If the data end early, are damaged, or inflate to more than is declared.
    """
    with path.open("rb") as file, _refusing_damage(path.name, codec):
        room = os.fstat(file.fileno()).st_size - offset
        if room * (1 if codec == "raw" else MAX_DEFLATE_RATIO) < num_bytes + skip:
            raise VolumeReadError(
                f"{path.name}: file must hold the {num_bytes} bytes that its header declares, "
                f"got {max(room, 0)} bytes of {codec} data; the file is cut off or its header is wrong: copy it again"
            )
        file.seek(offset)
        with _inflating(file, codec) as stream:
            return _read_exactly(path.name, stream, num_bytes, skip, is_packed=codec != "raw")


def read_start(path: Path, num_bytes: int, codec: Codec) -> bytes:
    """Return the first ``num_bytes`` of the (inflated) data, or fewer if there are no more.

    Raises:
        VolumeReadError: If the data are damaged.
    """
    with path.open("rb") as file, _refusing_damage(path.name, codec), _inflating(file, codec) as stream:
        return stream.read(num_bytes)


@contextmanager
def _refusing_damage(name: str, codec: Codec) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise VolumeReadError(
            f"{name}: compressed data must be whole, got an early end; the file is cut off: copy it again"
        ) from None
    except (OSError, zlib.error, _ISAL_ERROR) as error:
        raise VolumeReadError(
            f"{name}: data must be readable {codec} data, got an error ({error}); copy the file again"
        ) from None


def _inflating(file: io.BufferedReader, codec: Codec) -> io.BufferedIOBase:
    """Return a stream of the inflated data that begin where ``file`` stands."""
    if codec == "raw":
        return file
    if codec == "zlib" and file.peek(2)[:2] != GZIP_MAGIC:
        return io.BufferedReader(_ZlibStream(file), _CHUNK_BYTES)
    return igzip.IGzipFile(fileobj=file, mode="rb")


def _read_exactly(
    name: str, stream: io.BufferedIOBase, num_bytes: int, skip: int, *, is_packed: bool
) -> NDArray[np.uint8]:
    while skip > 0:
        skipped = len(stream.read(min(skip, _CHUNK_BYTES)))
        if skipped == 0:
            raise EOFError
        skip -= skipped
    data = np.empty(num_bytes, dtype=np.uint8)
    view, filled = data.data, 0
    while filled < num_bytes:
        count = stream.readinto(view[filled : filled + _CHUNK_BYTES])
        if not count:
            raise EOFError
        filled += count
    if is_packed and len(stream.read(MAX_PADDING_BYTES + 1)) > MAX_PADDING_BYTES:
        raise VolumeReadError(
            f"{name}: data must end where the header says, got more than {num_bytes} bytes when inflated; "
            "the header is wrong or the file is hostile: export it again"
        )
    return data


class _ZlibStream(io.RawIOBase):
    """Inflates a zlib stream piece by piece; never holds more than one piece."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__()
        self._file = file
        self._inflater = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(_CHUNK_BYTES)
            data = self._inflater.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not packed:
                raise EOFError
        return 0
