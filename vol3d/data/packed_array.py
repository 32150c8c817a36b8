"""Arrays in the fewest bytes that give every bit back.

A preprocessed CT is float32, yet it was made from 12-bit integers: after a window or a scaling it still holds at
most some thousand different values. Three encodings, tried from the smallest, each checked bit by bit:

* ``cast``: the values are exact in a smaller type (int8, uint8, int16, float16).
* ``palette``: at most 65536 different values; a table of them and an index of 8 or 16 bits per voxel. This covers
  every scale and offset of integers, whatever the rounding of the transform that applied them.
* ``raw``: the bytes themselves.

Then runs of one value go: what lies outside the body, or is no organ, fills most of a volume. The codes are cut into
blocks of 512, and of a block whose codes are all equal only one is kept. In a CT cropped to the neck nine of ten
blocks go; reading the rest is faster than reading everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

MAX_TABLE = 1 << 16
PART_NAMES = ("codes", "table", "is_filled", "fills")
_CASTS = (torch.int8, torch.uint8, torch.int16, torch.float16)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SAMPLE = 200_000
_PIECE = 1 << 16
_BLOCK = 512


@dataclass(frozen=True)
class _Blocks:
    """Where which whole block goes; most blocks hold one value (air, background) and are filled in one pass."""

    num_blocks: int
    background: torch.Tensor
    kept: torch.Tensor
    others: torch.Tensor
    fills: torch.Tensor


@dataclass(frozen=True)
class PackedArray:
    """One encoded array.

    Args:
        dtype: Of the array that comes back.
        shape: Of the array that comes back.
        codes: What is stored, one dimension; palette indices above 32767 wrap to negative int16.
        table: The values of a palette, in ``dtype``.
        is_filled: One bool per whole block: all its codes are equal and left out of ``codes``.
        fills: The code of each of those blocks.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    codes: torch.Tensor
    table: torch.Tensor | None = None
    is_filled: torch.Tensor | None = None
    fills: torch.Tensor | None = None

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """The tensors of which it consists, by name."""
        named = {name: getattr(self, name) for name in PART_NAMES}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def num_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())

    def to(self, device: torch.device) -> PackedArray:
        """Return a copy that owns its memory, on ``device``."""
        parts: dict[str, Any] = {name: part.to(device, copy=True) for name, part in self.parts.items()}
        return replace(self, **parts)

    def unpack(self) -> torch.Tensor:
        """Return a new tensor with the original bits, on the device of the codes."""
        blocks = self._blocks
        if blocks is None:
            return self._decode(self.codes).reshape(self.shape)
        result = torch.empty(math.prod(self.shape), dtype=self.dtype, device=self.codes.device)
        kept = _bits(self._decode(self.codes))
        num_blocked, num_kept = blocks.num_blocks * _BLOCK, len(blocks.kept) * _BLOCK
        filled = _bits(result)[:num_blocked].view(-1, _BLOCK)
        filled.fill_(blocks.background)
        filled.index_copy_(0, blocks.kept, kept[:num_kept].view(-1, _BLOCK))
        filled.index_copy_(0, blocks.others, blocks.fills[:, None].expand(-1, _BLOCK))
        _bits(result)[num_blocked:] = kept[num_kept:]
        return result.reshape(self.shape)

    @cached_property
    def _blocks(self) -> _Blocks | None:
        if self.is_filled is None or self.fills is None:
            return None
        fills = _bits(self._decode(self.fills))
        background = fills.mode().values
        is_other, places = fills != background, self.is_filled.nonzero()[:, 0]
        kept = (~self.is_filled).nonzero()[:, 0]
        return _Blocks(self.is_filled.numel(), background, kept, places[is_other], fills[is_other])

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            return codes.to(self.dtype, copy=True)
        values = torch.empty(codes.numel(), dtype=self.dtype, device=codes.device)
        # In pieces that stay in the processor's cache; a GPU takes everything at once.
        piece = _PIECE if codes.device.type == "cpu" else max(codes.numel(), 1)
        for start in range(0, codes.numel(), piece):
            indices = codes[start : start + piece].to(torch.int32)
            if codes.dtype == torch.int16 and self.table.numel() > MAX_TABLE // 2:  # else none has wrapped
                indices &= MAX_TABLE - 1
            # As bits: index_select does not know every dtype.
            torch.index_select(_bits(self.table), 0, indices, out=_bits(values[start : start + piece]))
        return values


def pack_array(array: torch.Tensor) -> PackedArray:
    """Encode a tensor of any dtype and shape; NaN payloads and negative zeros survive."""
    flat = array.detach().as_subclass(torch.Tensor).cpu().contiguous().reshape(-1)
    packed = PackedArray(array.dtype, tuple(array.shape), flat)
    return packed if flat.is_complex() else _without_filled_blocks(_smaller_codes(packed))


def _smaller_codes(packed: PackedArray) -> PackedArray:
    flat = packed.codes
    if flat.numel() == 0 or flat.element_size() == 1:
        return packed
    for small in _CASTS:
        if small.itemsize < flat.element_size() and _is_exact(flat, small):
            return replace(packed, codes=flat.to(small))
    return _palette(packed) or packed


def _without_filled_blocks(packed: PackedArray) -> PackedArray:
    num_blocks = packed.codes.numel() // _BLOCK
    blocks = _bits(packed.codes)[: num_blocks * _BLOCK].view(-1, _BLOCK)
    is_filled = (blocks == blocks[:, :1]).all(dim=1)
    if num_blocks == 0 or 4 * int(is_filled.sum()) < num_blocks:  # too few to pay
        return packed
    dtype = packed.codes.dtype
    codes = torch.cat([blocks[~is_filled].reshape(-1), _bits(packed.codes)[num_blocks * _BLOCK :]])
    return replace(packed, codes=codes.view(dtype), is_filled=is_filled, fills=blocks[is_filled, 0].view(dtype))


def _is_exact(flat: torch.Tensor, small: torch.dtype) -> bool:
    # Most arrays fail on their first voxels: look there before touching all of them.
    return all(_same_bits(part, part.to(small).to(part.dtype)) for part in (flat[:4096], flat))


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(_bits(first), _bits(second))


def _bits(flat: torch.Tensor) -> torch.Tensor:
    return flat.view(_BITS[flat.element_size()])


def _palette(packed: PackedArray) -> PackedArray | None:
    bits: np.ndarray[Any, Any] = _bits(packed.codes).numpy()
    max_entries = min(MAX_TABLE, packed.codes.numel() // 4)
    if len(np.unique(bits[:: len(bits) // _SAMPLE + 1])) > max_entries:
        return None
    values = np.unique(bits)
    if len(values) > max_entries or (packed.dtype.itemsize == 2 and len(values) > 256):
        return None
    indices = np.searchsorted(values, bits)
    codes = indices.astype(np.uint8) if len(values) <= 256 else indices.astype(np.uint16).view(np.int16)
    return replace(packed, codes=torch.from_numpy(codes), table=torch.from_numpy(values).view(packed.dtype))
