"""From slabs on the network's grid to label and probability maps on the scan's own grid, in bounded memory.

Logits (or probabilities) are interpolated linearly and decided afterwards, which keeps surfaces smooth where the
scan is finer than the network's grid. A scan voxel is written by the slab that owns its high neighbors; see
:mod:`vol3d.inference.grid_map` for the neighbors and :mod:`vol3d.inference.resample` for the shortcut that makes
label maps cheap.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

from vol3d.inference.grid_map import neighbors
from vol3d.inference.resample import (
    Axis3,
    corner_range,
    highest_class,
    sample_labels,
    sample_lines,
    sample_points,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vol3d.inference.grid_map import AxisLine, GridMap
    from vol3d.inference.output_maps import OutputMaps
    from vol3d.inference.sliding_window import FusedSlab

Ends = tuple[Axis3, Axis3, Axis3]
"""Low neighbors, high neighbors and fractions of single points."""

CHUNK_BYTES = 64 * 2**20
"""Size of the largest temporary array; small enough to stay in the processor's cache for the most part."""


class SlabRestorer:
    """Fills :class:`OutputMaps` from the slabs of a stream, in any order.

    Args:
        grid_map: From the scan to the network's grid.
        maps: Arrays to fill.
        is_probability: Whether the slabs hold probabilities instead of logits.
        chunk_bytes: Size of the largest temporary array.
    """

    def __init__(
        self, grid_map: GridMap, maps: OutputMaps, *, is_probability: bool = False, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self._map = grid_map
        self._maps = maps
        self._is_probability = is_probability
        self._chunk_bytes = chunk_bytes

    def add(self, slab: FusedSlab) -> None:
        """Write every scan voxel whose high neighbors ``slab`` owns."""
        if self._map.lines is None:
            self._add_oblique(slab)
            return
        own = []
        for line, (low, high), (first, _) in zip(self._map.lines, slab.owned, slab.box, strict=True):
            own.append(line.select((line.high >= low) & (line.high < high)).shift(first))
        if min(len(line) for line in own) == 0:
            return
        if self._maps.needs_only_labels:
            self._write_labels(slab.values, own)
        else:
            self._write_maps(slab.values, own)

    def _write_maps(self, values: torch.Tensor, lines: list[AxisLine]) -> None:
        for part in _parts(lines, self._chunk_bytes // (4 * len(values))):
            order, place = _scan_order(part)
            sampled = sample_lines(values, part).permute(0, *[1 + axis for axis in order])
            self._maps.write(place, sampled, None, is_probability=self._is_probability)

    def _write_labels(self, values: torch.Tensor, lines: list[AxisLine]) -> None:
        labels = highest_class(values)
        # An index of three axes takes 24 bytes a point, should every point of a part be at a surface.
        for part in _parts(lines, self._chunk_bytes // 24):
            smallest, largest = corner_range(labels, part)
            at_surface = (smallest != largest).nonzero(as_tuple=True)
            smallest[at_surface] = self._decide(values, _ends_of_lines(part, at_surface)).to(smallest.dtype)
            order, place = _scan_order(part)
            self._maps.write_labels(place, smallest.permute(order))

    def _add_oblique(self, slab: FusedSlab) -> None:
        labels = highest_class(slab.values) if self._maps.needs_only_labels else None
        # Position, neighbors and fraction of each point take 3 x 4 numbers of 8 bytes beside its channels.
        for place in _blocks(self._map, slab, self._chunk_bytes // (96 + 4 * len(slab.values))):
            ends, keep = _ends_of_block(self._map, slab, place)
            if not bool(keep.any()):
                continue
            if labels is None:
                sampled = slab.values.new_zeros((len(slab.values), *keep.shape))
                sampled[:, keep] = sample_points(slab.values, *ends)
                self._maps.write(place, sampled, keep, is_probability=self._is_probability)
                continue
            smallest, largest = sample_labels(labels, ends[0], ends[1])
            at_surface = smallest != largest
            smallest[at_surface] = self._decide(slab.values, _pick(ends, at_surface)).to(smallest.dtype)
            block = torch.zeros(keep.shape, dtype=smallest.dtype, device=smallest.device)
            block[keep] = smallest
            self._maps.write_labels(place, block, keep)

    def _decide(self, values: torch.Tensor, ends: Ends) -> torch.Tensor:
        """Return the highest class of single points, a chunk at a time."""
        size = max(self._chunk_bytes // (4 * len(values)), 1)
        decided = torch.zeros(len(ends[0][0]), dtype=torch.int16, device=values.device)
        for start in range(0, len(decided), size):
            part = slice(start, start + size)
            sampled = sample_points(values, *_pick(ends, part))
            decided[part] = highest_class(sampled[:, :, None, None]).flatten().to(torch.int16)
        return decided


def _pick(ends: Ends, which: slice | torch.Tensor) -> Ends:
    low, high, fraction = ((axes[0][which], axes[1][which], axes[2][which]) for axes in ends)
    return low, high, fraction


def _parts(lines: list[AxisLine], max_points: int) -> Iterator[list[AxisLine]]:
    steps = _steps([len(line) for line in lines], max_points)
    for part in product(*(line.split(step) for line, step in zip(lines, steps, strict=True))):
        yield list(part)


def _steps(shape: list[int], max_points: int) -> list[int]:
    """Return the edge lengths of blocks of at most ``max_points``, cut along the first axes, where cuts cost least."""
    steps = list(shape)
    for axis in range(3):
        steps[axis] = min(max(max_points // math.prod(steps[axis + 1 :]), 1), shape[axis])
        if math.prod(steps) <= max_points:
            break
    return steps


def _scan_order(lines: list[AxisLine]) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Return the network axis that runs along each scan axis, and the part of the scan that the lines stand for."""
    order = tuple(sorted(range(3), key=lambda axis: lines[axis].scan_axis))
    return order, tuple(slice(lines[axis].first, lines[axis].first + len(lines[axis])) for axis in order)


def _ends_of_lines(lines: list[AxisLine], points: tuple[torch.Tensor, ...]) -> Ends:
    axes = []
    for line, index in zip(lines, points, strict=True):
        tables = (torch.from_numpy(table).to(index.device) for table in (line.low, line.high, line.fraction))
        axes.append([table[index] for table in tables])
    low, high, fraction = zip(*axes, strict=True)
    return low, high, fraction


def _blocks(grid_map: GridMap, slab: FusedSlab, max_points: int) -> Iterator[tuple[slice, ...]]:
    """Yield the blocks of the scan, at most ``max_points`` each, that may hold voxels of the slab."""
    # A voxel outside the grid is still served by the border, hence one voxel more on every side.
    corners = np.array(list(product(*((low - 1, high + 1) for low, high in slab.owned))), dtype=np.float64)
    inverse = np.linalg.inv(grid_map.affine)
    seen = corners @ inverse[:3, :3].T + inverse[:3, 3]
    lows = np.maximum(np.floor(seen.min(axis=0)).astype(int), [low for low, _ in grid_map.limits])
    highs = np.minimum(np.ceil(seen.max(axis=0)).astype(int) + 1, [high for _, high in grid_map.limits])
    if (highs <= lows).any():
        return
    steps = _steps([int(n) for n in highs - lows], max_points)
    edges = [range(int(low), int(high), step) for low, high, step in zip(lows, highs, steps, strict=True)]
    for start in product(*edges):
        ends = [min(s + step, int(high)) for s, step, high in zip(start, steps, highs, strict=True)]
        yield tuple(slice(s, end) for s, end in zip(start, ends, strict=True))


def _ends_of_block(grid_map: GridMap, slab: FusedSlab, place: tuple[slice, ...]) -> tuple[Ends, torch.Tensor]:
    """Return the neighbors, in the slab, of those voxels of a block that the slab owns, and which these are."""
    index = np.stack(np.meshgrid(*(np.arange(p.start, p.stop) for p in place), indexing="ij"))
    position = np.tensordot(grid_map.affine[:3, :3], index, axes=1) + grid_map.affine[:3, 3, None, None, None]
    found = [neighbors(position[axis], grid_map.network_shape[axis]) for axis in range(3)]
    keep = np.ones(index.shape[1:], dtype=bool)
    for (_, high, _, is_inside), (first, stop) in zip(found, slab.owned, strict=True):
        keep &= is_inside & (high >= first) & (high < stop)
    device = slab.values.device
    axes = [
        [torch.from_numpy(table[keep]).to(device) for table in (low - first, high - first, fraction)]
        for (low, high, fraction, _), (first, _) in zip(found, slab.box, strict=True)
    ]
    lows, highs, fractions = zip(*axes, strict=True)
    return (lows, highs, fractions), torch.from_numpy(keep).to(device)
