"""Weights that blend overlapping windows, equal to those of MONAI's ``sliding_window_inference``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vol3d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

BLEND_MODES = ("constant", "gaussian")

# MONAI clamps the weights from below, so that a voxel seen only by a window's corner is still divided by something.
MIN_WEIGHT = 1e-3


def blend_weights(
    roi_size: Sequence[int], mode: str = "gaussian", sigma_scale: Sequence[float] | float = 0.125
) -> torch.Tensor:
    """Return the weight of each voxel of a window, shape ``roi_size``, float32 on the CPU, all above 0.

    Args:
        roi_size: Window along ``H W D``.
        mode: ``"constant"`` weighs all voxels alike, ``"gaussian"`` the centre more.
        sigma_scale: Standard deviation of the Gaussian as a part of the window's length, one number or one per axis.

    Raises:
        UsageError: If the mode is unknown or a sigma is not positive.

    Example:
        >>> blend_weights((3, 1, 1), "gaussian", sigma_scale=1 / 3).flatten()
        tensor([0.6065, 1.0000, 0.6065])
    """
    if mode not in BLEND_MODES:
        raise UsageError(f"mode must be one of {', '.join(BLEND_MODES)}, got {mode!r}; choose how windows are blended")
    if mode == "constant":
        return torch.ones(tuple(roi_size))
    scales = [float(sigma_scale)] * 3 if isinstance(sigma_scale, int | float) else [float(s) for s in sigma_scale]
    if len(scales) != 3 or min(scales) <= 0:
        raise UsageError(f"sigma_scale must be positive, got {sigma_scale}; MONAI's default is 0.125")
    rows = []
    for size, scale in zip(roi_size, scales, strict=True):
        offsets = torch.arange(size, dtype=torch.float32) - (size - 1) / 2.0
        rows.append(torch.exp(offsets**2 / (-2 * (size * scale) ** 2)))
    weights = rows[0][:, None, None] * rows[1][None, :, None] * rows[2][None, None, :]
    return weights.clamp_(min=max(float(weights.min()), MIN_WEIGHT))
