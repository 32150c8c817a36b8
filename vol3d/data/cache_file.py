"""The file of one cached case: a header, a record of its origin, and aligned arrays that are read in place.

::

    offset  size  content
    0       8     magic, "vol3dcas"
    8       4     CRC-32 of everything that follows it
    12      4     version of this layout
    16      8     length of the whole file
    24      3*8   lengths of header, tree and record
    48            header: JSON, the key, the place and type of each array
                  tree: JSON, structure and plain values of the case
                  record: JSON, what ``vol3d cache why`` compares: fingerprint, digests of inputs and paths
    aligned       arrays, each at a multiple of 64 bytes

Numbers are little-endian. CRC-32 finds every flipped bit and every burst of up to 32 bits, and all but one in four
thousand million other damages; at 5 GB/s it costs a fifth of the copy into a tensor. It guards against accidents:
who may write into the cache folder may change data.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

import torch

from vol3d.data.atomic_write import atomic_path
from vol3d.data.packed_array import PackedArray
from vol3d.data.packed_case import PackedCase
from vol3d.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from vol3d.data.canonical_value import Json

MAGIC = b"vol3dcas"
VERSION = 1
ALIGNMENT = 64
_PREFIX = struct.Struct("<8sI")
_LENGTHS = struct.Struct("<IQQQQ")
_START = _PREFIX.size + _LENGTHS.size


class CacheFileError(DataError):
    """A cache file is truncated, damaged or not one; whoever reads it computes the case anew."""


def write_cache_file(path: Path, key: str, case: PackedCase, record: Json) -> int:
    """Write a case atomically and durably.

    Args:
        path: The file.
        key: Key of the case, kept inside too, so that a renamed file is noticed.
        case: Its arrays must be on the CPU.
        record: Plain JSON about the origin of the case.

    Returns:
        The size of the file in bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    tensors = [part for array in case.arrays for part in array.parts.values()]
    arrays, data_size = _lay_out(case)
    header = {"key": key, "belongs_to": case.belongs_to, "arrays": arrays}
    texts = [json.dumps(header).encode(), case.tree, json.dumps(record).encode()]
    data_start = _padded(_START + sum(map(len, texts)))
    total = data_start + data_size
    chunks: list[Any] = [_LENGTHS.pack(VERSION, total, *map(len, texts)), *texts]
    chunks.append(bytes(data_start - _START - sum(map(len, texts))))
    for tensor in tensors:
        size = _size(tensor)
        chunks += [tensor.contiguous().view(torch.uint8).numpy().data if size else b"", bytes(_padded(size) - size)]
    checksum = 0
    for chunk in chunks:
        checksum = zlib.crc32(chunk, checksum)
    with atomic_path(path) as aside, aside.open("wb") as stream:
        stream.writelines([_PREFIX.pack(MAGIC, checksum), *chunks])
    return total


def read_cache_file(path: Path, key: str, *, is_verified: bool) -> PackedCase:
    """Map a case into memory; its arrays are read when they are unpacked.

    Args:
        path: The file.
        key: The key that it must have.
        is_verified: The checksum of this very file was found right before; only the header is checked again.

    Raises:
        CacheFileError: If the file is not a whole, undamaged cache file of this key.
        FileNotFoundError: If there is none.
    """
    content = _map(path)
    header_text, tree, _, data_start = _split(content, is_verified=is_verified)
    header = json.loads(header_text)
    if header["key"] != key:
        raise CacheFileError(f"cache file must hold the key of its name, got {header['key']}; it is computed anew")
    data = memoryview(content)[data_start:]
    arrays = tuple(
        PackedArray(
            getattr(torch, form["dtype"]),
            tuple(form["shape"]),
            **{name: _tensor(data, part) for name, part in form["parts"].items()},
        )
        for form in header["arrays"]
    )
    return PackedCase(tree, arrays, header["belongs_to"])


def read_cache_record(path: Path) -> Json:
    """Return the record of a cache file.

    Raises:
        CacheFileError: If the file is damaged.
        FileNotFoundError: If there is none.
    """
    _, _, record, _ = _split(_map(path), is_verified=False)
    return json.loads(record)


def _map(path: Path) -> mmap.mmap:
    handle = os.open(path, os.O_RDONLY)
    try:
        # Private and writable: torch refuses read-only memory, and a write would reach neither file nor neighbours.
        return mmap.mmap(handle, 0, access=mmap.ACCESS_COPY)
    except ValueError as error:
        raise CacheFileError("cache file must not be empty, got 0 bytes; it is computed anew") from error
    finally:
        os.close(handle)


def _split(content: mmap.mmap, *, is_verified: bool) -> tuple[bytes, bytes, bytes, int]:
    """Return header, tree, record and the start of the arrays."""
    if len(content) < _START or content[:8] != MAGIC:
        raise CacheFileError(f"cache file must start with {MAGIC!r}, got {content[:8]!r}; it is computed anew")
    version, total, *lengths = _LENGTHS.unpack_from(content, _PREFIX.size)
    if version != VERSION or total != len(content):
        raise CacheFileError(
            f"cache file must have version {VERSION} and {total} bytes, "
            f"got version {version} and {len(content)} bytes; it is computed anew"
        )
    if not is_verified:
        checksum = zlib.crc32(memoryview(content)[_PREFIX.size :])
        expected = _PREFIX.unpack_from(content)[1]
        if checksum != expected:
            raise CacheFileError(
                f"cache file must have checksum {expected:08x}, got {checksum:08x}; it is computed anew"
            )
    ends = [_START + sum(lengths[:index]) for index in range(4)]
    header, tree, record = (content[start:end] for start, end in itertools.pairwise(ends))
    return header, tree, record, _padded(ends[-1])


def _lay_out(case: PackedCase) -> tuple[list[Json], int]:
    """Return the header entry of each array and the bytes that all of them take."""
    offset = 0
    forms: list[Json] = []
    for array in case.arrays:
        parts: Json = {}
        for name, part in array.parts.items():
            parts[name] = {"at": offset, "dtype": _name(part.dtype), "num": part.numel()}
            offset += _padded(_size(part))
        forms.append({"dtype": _name(array.dtype), "shape": list(array.shape), "parts": parts})
    return forms, offset


def _tensor(data: memoryview, form: Json) -> torch.Tensor:
    dtype = getattr(torch, form["dtype"])
    if form["num"] == 0:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=form["num"], offset=form["at"])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
