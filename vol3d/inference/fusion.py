"""Accumulators that blend the windows of one layer after another and hand out what is final."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from vol3d.errors import UsageError
from vol3d.inference.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vol3d.inference.window_plan import Box, Triple

logger = logging.getLogger(__name__)

HALO = 1
"""Voxels of the slab before that a slab carries, which linear interpolation across the border needs."""


class SlabFusion:
    """Weighted sums of one tile over one layer of windows; nothing else of the volume is held.

    Args:
        region: Ranges of the tile in the padded volume; what windows hold beyond it is dropped.
        slab_axis: Axis (0 to 2) along which layers follow each other.
        weights: Weight of each voxel of a window, shape ``H W D`` of the window, on the device that fuses.
    """

    def __init__(self, region: Box, slab_axis: int, weights: torch.Tensor) -> None:
        self._region = region
        self._axis = slab_axis
        self._window_weights = weights
        self._low = region[slab_axis][0]
        shape = [high - low for low, high in region]
        # One voxel more than a window along the slab axis: the last voxel of the finished slab stays for whoever
        # interpolates across the border.
        shape[slab_axis] = weights.shape[slab_axis] + HALO
        self._weights = weights.new_zeros(shape)
        self._sums: torch.Tensor | None = None

    def add(self, values: torch.Tensor, start: Triple) -> None:
        """Blend one window in.

        Args:
            values: The network's output for the window, ``C H W D``.
            start: The window's first voxel in the padded volume; along the slab axis, that of the current layer.
        """
        if self._sums is None:
            self._sums = self._zeros(values.shape[0], values.dtype)
        here, inside = [], []
        for axis, (low, high) in enumerate(self._region):
            size = values.shape[1 + axis]
            origin, end = (self._low - HALO, self._low + size) if axis == self._axis else (low, high)
            first, last = max(start[axis], origin), min(start[axis] + size, end)
            here.append(slice(first - origin, last - origin))
            inside.append(slice(first - start[axis], last - start[axis]))
        weights = self._window_weights[tuple(inside)]
        part = values[(slice(None), *inside)].to(self._sums)
        self._sums[(slice(None), *here)].addcmul_(part, weights)
        self._weights[tuple(here)] += weights

    def finish(self, length: int, background: Sequence[float]) -> torch.Tensor:
        """Return the halo and ``length`` voxels behind it along the slab axis, blended.

        The halo is the last voxel of the slab before, meaningless in the first slab. The result is a view, valid
        until :meth:`advance`.

        Args:
            length: Voxels along the slab axis that no later layer touches.
            background: Value of each channel where no window was computed.
        """
        if self._sums is None:
            self._sums = self._zeros(len(background), self._weights.dtype)
        weights = self._weights.narrow(self._axis, HALO, length)
        values = self._sums.narrow(1 + self._axis, HALO, length)
        uncovered = weights == 0
        if bool(uncovered.any()):
            weights = weights.masked_fill_(uncovered, 1)
            for channel, level in zip(values, background, strict=True):
                channel.masked_fill_(uncovered, level)
        values.div_(weights)
        return self._sums.narrow(1 + self._axis, 0, HALO + length)

    def advance(self, length: int) -> None:
        """Drop the first ``length`` voxels along the slab axis and make room for the next layer."""
        self._low += length
        for sums, axis in ((self._weights, self._axis), (self._sums, 1 + self._axis)):
            if sums is None:
                continue
            kept = sums.shape[axis] - length
            # Steps of `length` keep source and target apart, so that the move needs no second buffer.
            for offset in range(0, kept, length):
                size = min(length, kept - offset)
                sums.narrow(axis, offset, size).copy_(sums.narrow(axis, offset + length, size))
            sums.narrow(axis, kept, length).zero_()

    def _zeros(self, num_channels: int, dtype: torch.dtype) -> torch.Tensor:
        # float64 networks keep their precision; anything shorter than float32 would lose it in the sum.
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        shape = (num_channels, *self._weights.shape)
        try:
            return torch.zeros(shape, dtype=wide, device=self._weights.device)
        except RuntimeError as error:
            if self._weights.device.type == "cpu" or not is_out_of_memory(error):
                raise
        logger.warning("%s cannot hold accumulators of %s; windows are fused on the CPU", self._weights.device, shape)
        self._weights, self._window_weights = self._weights.cpu(), self._window_weights.cpu()
        return torch.zeros(shape, dtype=wide)


def background_levels(num_channels: int, *, is_probability: bool) -> tuple[float, ...]:
    """Return the value of each channel where the answer is background for certain.

    With several channels the first is the background: logit 30 against 0, whose softmax is 1 in float32. A single
    channel is the foreground of a binary mask: logit -30.

    Args:
        num_channels: Channels of the network's output.
        is_probability: Whether the channels hold probabilities instead of logits.

    Raises:
        UsageError: If there is no channel.
    """
    if num_channels < 1:
        raise UsageError(f"num_channels must be at least 1, got {num_channels}; give the network's output channels")
    if num_channels == 1:
        return (0.0,) if is_probability else (-30.0,)
    return (1.0 if is_probability else 30.0, *[0.0] * (num_channels - 1))
