"""Pure arithmetic of a sliding window: which windows, in which order, and when a voxel is final. No torch here.

Vocabulary: the **volume** has shape ``H W D``; where it is smaller than the window it is padded on both sides, and
all positions below are in the **padded volume**. Windows of one **layer** start at the same voxel of the **slab
axis**. When a layer is done, everything below the start of the next layer can change no more: that is a **slab**.
A **tile** is a part of the plane across the slab axis that is streamed on its own because the whole plane does not
fit in memory; a window that reaches into two tiles is computed for both.

The windows are those of MONAI's ``sliding_window_inference`` (``dense_patch_slices`` and ``_get_scan_interval`` of
MONAI 1.6): step ``int(roi * (1 - overlap))``, at least 1, and the last window of an axis is moved back inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from typing import TYPE_CHECKING

from vol3d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Triple = tuple[int, int, int]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open ranges along ``H W D``."""

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Layer:
    """Windows that start at the same voxel of the slab axis, and the slab that is final after them.

    Args:
        starts: First voxel of each window, in MONAI's order (last axis fastest).
        slab: The voxels along the slab axis that no later layer touches and no earlier one finished.
    """

    starts: tuple[Triple, ...]
    slab: tuple[int, int]


@dataclass(frozen=True)
class WindowPlan:
    """The windows of one volume; make it with :func:`plan_windows`.

    Args:
        volume_shape: Voxels of the volume along ``H W D`` before padding.
        roi_size: Window along ``H W D``.
        starts: First voxels of the windows along each axis, in the padded volume, ascending.
        slab_axis: The axis along which slabs are finished.
        num_tiles: Tiles along each axis; 1 along the slab axis.
    """

    volume_shape: Triple
    roi_size: Triple
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    slab_axis: int
    num_tiles: Triple = (1, 1, 1)

    @cached_property
    def padded_shape(self) -> Triple:
        """The volume's shape, or the window's where that is larger."""
        return _triple(max(pair) for pair in zip(self.volume_shape, self.roi_size, strict=True))

    @cached_property
    def pad_before(self) -> Triple:
        """Voxels put before the volume along each axis; MONAI puts the odd one behind."""
        return _triple((p - v) // 2 for p, v in zip(self.padded_shape, self.volume_shape, strict=True))

    @property
    def num_windows(self) -> int:
        """Windows of the volume, each counted once."""
        return math.prod(len(axis) for axis in self.starts)

    @property
    def num_computed(self) -> int:
        """Windows that the tiles compute together; above ``num_windows`` when tiles share some."""
        return sum(len(layer.starts) for tile in self.tiles() for layer in self.layers(tile))

    def tiles(self) -> Iterator[Box]:
        """Yield the parts of the padded volume that are streamed one after another; together they cover it."""
        yield from product(*map(_split, self.padded_shape, self.num_tiles))

    def tile_with_halo(self, tile: Box) -> Box:
        """Widen a tile by one voxel on its low sides: linear interpolation across its border needs that voxel."""
        ranges = [(max(low - 1, 0), high) for low, high in tile]
        ranges[self.slab_axis] = tile[self.slab_axis]
        return (ranges[0], ranges[1], ranges[2])

    def layers(self, region: Box | None = None) -> Iterator[Layer]:
        """Yield the layers in order, with only the windows that touch ``region`` (default: everything)."""
        region = region or _whole(self.padded_shape)
        touching = [
            [s for s in starts if s < high and s + roi > low]
            for starts, roi, (low, high) in zip(self.starts, self.roi_size, region, strict=True)
        ]
        along = touching[self.slab_axis]
        done = region[self.slab_axis][0]
        for number, start in enumerate(along):
            is_last = number + 1 == len(along)
            stop = region[self.slab_axis][1] if is_last else along[number + 1]
            touching[self.slab_axis] = [start]
            yield Layer(tuple(product(*touching)), (done, stop))  # type: ignore[arg-type]
            done = stop

    def keep(self, is_needed: Callable[[Box], bool]) -> frozenset[Triple]:
        """Return the starts of the windows for which ``is_needed`` holds.

        Args:
            is_needed: Receives a window's ranges in the volume itself, cut where the window reaches into the padding.
        """
        return frozenset(start for start in product(*self.starts) if is_needed(self.window_in_volume(start)))

    def window_in_volume(self, start: Triple) -> Box:
        """Return a window's ranges in the volume before padding."""
        ranges = [
            (max(s - pad, 0), min(s - pad + roi, size))
            for s, pad, roi, size in zip(start, self.pad_before, self.roi_size, self.volume_shape, strict=True)
        ]
        return (ranges[0], ranges[1], ranges[2])

    def fusion_bytes(self, num_channels: int) -> int:
        """Return the bytes of the largest tile's float32 accumulators: channels and weights of a layer and its halo."""
        largest = max((self.tile_with_halo(tile) for tile in self.tiles()), key=_num_voxels)
        plane = [high - low for low, high in largest]
        plane[self.slab_axis] = self.roi_size[self.slab_axis] + 1
        return math.prod(plane) * (num_channels + 1) * FLOAT_BYTES

    def within(self, memory_bytes: int, num_channels: int) -> WindowPlan:
        """Return this plan with as few tiles as make the accumulators fit.

        Raises:
            UsageError: If not even tiles as small as the window fit.
        """
        plan = self
        while plan.fusion_bytes(num_channels) > memory_bytes:
            across = [axis for axis in range(3) if axis != self.slab_axis]
            axis = max(across, key=lambda a: plan.padded_shape[a] / plan.num_tiles[a])
            if plan.padded_shape[axis] // (plan.num_tiles[axis] + 1) < plan.roi_size[axis]:
                raise UsageError(
                    f"memory must hold {plan.fusion_bytes(num_channels)} bytes to fuse {num_channels} channels of "
                    f"{plan.roi_size} windows, got {memory_bytes}; allow more memory or a smaller window"
                )
            tiles = list(plan.num_tiles)
            tiles[axis] += 1
            plan = replace(plan, num_tiles=_triple(tiles))
        return plan


def plan_windows(
    volume_shape: Sequence[int],
    roi_size: Sequence[int] | int,
    overlap: Sequence[float] | float = 0.25,
    slab_axis: int | None = None,
) -> WindowPlan:
    """Return the windows that MONAI's ``sliding_window_inference`` would run, in its order.

    Args:
        volume_shape: Voxels along ``H W D``.
        roi_size: Window; one number for a cube; zero, negative or None takes the volume's size along that axis.
        overlap: Shared part of neighbouring windows, at least 0 and below 1; one number or one per axis.
        slab_axis: Axis along which slabs are finished; by default the one that needs the least memory.

    Raises:
        UsageError: If a shape has not three positive axes, or the overlap is out of range.

    Example:
        >>> plan = plan_windows((10, 4, 4), roi_size=4, overlap=0.25)
        >>> plan.starts, [layer.slab for layer in plan.layers()]
        (((0, 3, 6), (0,), (0,)), [(0, 3), (3, 6), (6, 10)])
    """
    volume = tuple(int(n) for n in volume_shape)
    if len(volume) != 3 or min(volume) < 1:
        raise UsageError(f"volume_shape must have 3 axes of at least 1 voxel, got {volume}; give H W D of one volume")
    wanted = [roi_size] * 3 if isinstance(roi_size, int) else list(roi_size)
    shares = [float(overlap)] * 3 if isinstance(overlap, int | float) else [float(o) for o in overlap]
    if len(wanted) != 3 or len(shares) != 3:
        raise UsageError(f"roi_size and overlap must have 3 entries, got {wanted} and {shares}; give H W D")
    if not all(0 <= o < 1 for o in shares):
        raise UsageError(f"overlap must be at least 0 and below 1, got {overlap}; give the shared part of a window")
    roi = _triple(int(w) if w and w > 0 else size for w, size in zip(wanted, volume, strict=True))
    padded = [max(pair) for pair in zip(volume, roi, strict=True)]
    starts = [_axis_starts(*axis) for axis in zip(padded, roi, shares, strict=True)]
    if slab_axis is None:
        # The accumulators span the window along the slab axis and the volume along the others; on a tie the last
        # axis wins, along which the slices of most scans are stacked.
        slab_axis = min((2, 1, 0), key=lambda axis: roi[axis] / padded[axis])
    if slab_axis not in (0, 1, 2):
        raise UsageError(f"slab_axis must be 0, 1 or 2, got {slab_axis}; leave it out to let the plan choose")
    return WindowPlan(_triple(volume), roi, (starts[0], starts[1], starts[2]), slab_axis)


def _axis_starts(size: int, roi: int, overlap: float) -> tuple[int, ...]:
    step = max(int(roi * (1 - overlap)), 1)
    count = math.ceil((size - roi) / step) + 1
    return tuple(min(number * step, size - roi) for number in range(count))


def _split(size: int, parts: int) -> list[tuple[int, int]]:
    edges = [size * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def _num_voxels(box: Box) -> int:
    return math.prod(high - low for low, high in box)


def _whole(shape: Triple) -> Box:
    return ((0, shape[0]), (0, shape[1]), (0, shape[2]))


def _triple(values: Iterable[int]) -> Triple:
    first, second, third = values
    return (first, second, third)
