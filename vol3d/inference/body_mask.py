"""Where the patient is in a CT, coarsely and generously, so that windows of nothing but air need not be computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from scipy import ndimage

from vol3d.errors import ConfigError, IntensityError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vol3d.inference.window_plan import Box

COARSE_MM = 4.0
"""Edge of the coarse grid's voxels: fine enough for a margin in centimetres, thousands of times fewer than the scan."""

MIN_PART = 0.1
"""A component of at least this part of the largest one is body too: legs and arms are apart from each other."""


@dataclass(frozen=True)
class SkipOutsideBody:
    """The rule "compute only windows that come near the body", for the ``skip`` of the streaming inferer.

    Body is what exceeds a threshold in HU on a coarse grid: the components of at least a tenth of the largest one,
    their holes (lungs, bowel gas) filled slice by slice along each axis, widened by a margin. A window is needed if
    any body lies in it. Voxels of skipped windows are background with certainty; a bundle declares this only if its
    classes cannot lie in air outside the body.

    Args:
        below_hu: Intensities below it are air.
        margin_mm: How far around the body windows are still computed.
        window_hu: The two intensities that preprocessing mapped to 0 and 1, since the rule sees the network's input;
            None if the input is in HU.
        spacing_mm: Spacing of the input; needed if it is not a ``MetaTensor`` with an affine.
        channel: Channel of the input that holds the CT.

    Raises:
        ConfigError: If the margin is negative, or the window saturates above the threshold, so that air cannot be
            told from tissue.

    Example:
        In a bundle's YAML::

            skip:
              _target_: vol3d.inference.body_mask.SkipOutsideBody
              below_hu: -500
              margin_mm: 20
              window_hu: [-1000, 1000]
    """

    below_hu: float = -500.0
    margin_mm: float = 20.0
    window_hu: tuple[float, float] | None = None
    spacing_mm: Sequence[float] | None = None
    channel: int = 0

    def __post_init__(self) -> None:
        if self.margin_mm < 0:
            raise ConfigError(f"margin_mm must not be negative, got {self.margin_mm}; 20 is a safe margin")
        if self.window_hu is not None and not self.window_hu[0] < self.below_hu < self.window_hu[1]:
            raise ConfigError(
                f"below_hu must lie inside window_hu {tuple(self.window_hu)}, got {self.below_hu}; "
                "the network's input does not tell air from tissue otherwise"
            )

    def __call__(self, volume: torch.Tensor) -> Callable[[Box], bool]:
        """Return the test "does this box of the volume come near the body?".

        Args:
            volume: ``C H W D``, the network's input.

        Raises:
            ConfigError: If the spacing is unknown.
            IntensityError: If the volume has no such channel.
        """
        if self.channel >= len(volume):
            raise IntensityError(f"channel must be below {len(volume)}, got {self.channel}; name the CT's channel")
        image = volume[self.channel]
        threshold = self.below_hu
        if self.window_hu is not None:
            threshold = (self.below_hu - self.window_hu[0]) / (self.window_hu[1] - self.window_hu[0])
        plain = image.as_tensor() if isinstance(image, MetaTensor) else image
        body, edge = coarse_body(plain, threshold, self._spacing_mm(volume), self.margin_mm)
        # Sums over boxes from corner sums: each test is eight look-ups, however many windows there are.
        sums = np.pad(body, ((1, 0),) * 3).astype(np.int64).cumsum(0).cumsum(1).cumsum(2)

        def is_needed(box: Box) -> bool:
            low = [first // step for (first, _), step in zip(box, edge, strict=True)]
            high = [-(-stop // step) for (_, stop), step in zip(box, edge, strict=True)]
            return _box_sum(sums, low, high) > 0

        return is_needed

    def _spacing_mm(self, volume: torch.Tensor) -> tuple[float, ...]:
        if self.spacing_mm is not None:
            return tuple(float(s) for s in self.spacing_mm)
        if isinstance(volume, MetaTensor):
            return tuple(float(s) for s in volume.affine[:3, :3].norm(dim=0))
        raise ConfigError("spacing_mm must be given, got a volume without an affine; name the network's spacing")


def coarse_body(
    image: torch.Tensor, threshold: float, spacing_mm: Sequence[float], margin_mm: float
) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """Return the body with its margin on a coarse grid, and the edge of its voxels in voxels of the image.

    Args:
        image: ``H W D``.
        threshold: What is below it is air, in the unit of ``image``.
        spacing_mm: Along ``H W D``.
        margin_mm: How far the body is widened.

    Returns:
        A mask of ``ceil(size / edge)`` voxels along each axis; all False if nothing exceeds the threshold.
    """
    edges = [min(max(int(COARSE_MM / s), 1), size) for s, size in zip(spacing_mm, image.shape, strict=True)]
    edge = (edges[0], edges[1], edges[2])
    # The mean keeps noise and a thin table top out; ceil_mode keeps the last, partial voxels.
    coarse = F.avg_pool3d(image.float()[None, None], edge, ceil_mode=True, count_include_pad=False)[0, 0]
    body = _large_parts((coarse > threshold).cpu().numpy())
    for axis in range(3):
        # A windpipe cut by the end of the scan opens the lungs to the outside in 3D, but not in a slice.
        for number in range(body.shape[axis]):
            place = (slice(None),) * axis + (number,)
            body[place] = ndimage.binary_fill_holes(body[place])
    if not body.any():
        return body, edge
    coarse_mm = [s * e for s, e in zip(spacing_mm, edge, strict=True)]
    # Half a coarse diagonal makes up for the partial voxels at the skin that the mean left out.
    reach_mm = margin_mm + math.dist(coarse_mm, (0, 0, 0)) / 2
    return np.asarray(ndimage.distance_transform_edt(~body, sampling=coarse_mm) <= reach_mm), edge


def _large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    is_large = sizes >= MIN_PART * sizes.max()
    return np.asarray(is_large[parts] & mask)


def _box_sum(sums: NDArray[np.int64], low: Sequence[int], high: Sequence[int]) -> int:
    total = 0
    for corner in np.ndindex(2, 2, 2):
        index = tuple(h if is_high else first for is_high, first, h in zip(corner, low, high, strict=True))
        total += int(sums[index]) * (-1) ** (3 - sum(corner))
    return total
