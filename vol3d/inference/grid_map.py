"""Where each voxel of the scan lies on the network's grid, ready for linear interpolation.

``x`` below is a continuous index on the network's grid. A scan voxel needs the network voxels ``floor(x)`` (its *low*
neighbor) and ``ceil(x)`` (its *high* neighbor), weighted ``1 - fraction`` and ``fraction``. Up to one voxel beyond the
grid the border voxel is repeated; farther out there is nothing, and the scan voxel is background. This gives the
labels of MONAI's inverse transforms: the inverse of ``Spacingd`` repeats the border (a scan voxel is never more than
half a network voxel outside), the inverse of a crop puts zeros around it, and interpolating between logits and zeros
scales them, which changes no argmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vol3d.errors import GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vol3d.geometry import VolumeGeometry
    from vol3d.inference.window_plan import Box, Triple

# Headers keep affines in float32: over 1,000 voxels that is an error of about 1e-4 voxel. Closer than this to a voxel
# counts as on it, so that a grid that only was flipped or cropped is not interpolated at all.
SNAP_VOX = 1e-3


@dataclass(frozen=True)
class AxisLine:
    """Neighbors along one network axis for consecutive indices of the one scan axis that runs along it.

    Args:
        scan_axis: The scan axis (0 to 2).
        first: Scan index of the first entry.
        low: Lower neighbor of each entry.
        high: Upper neighbor; equal to ``low`` where ``fraction`` is 0.
        fraction: Weight of the upper neighbor, in ``[0, 1)``.
    """

    scan_axis: int
    first: int
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    fraction: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.low)

    @property
    def is_exact(self) -> bool:
        """Whether every entry lies on a network voxel."""
        return not self.fraction.any()

    def select(self, keep: NDArray[np.bool_]) -> AxisLine:
        """Return the entries where ``keep`` holds; they must follow each other without a gap."""
        chosen = np.flatnonzero(keep)
        start = int(chosen[0]) if len(chosen) else 0
        part = slice(start, start + len(chosen))
        return AxisLine(self.scan_axis, self.first + start, self.low[part], self.high[part], self.fraction[part])

    def shift(self, offset: int) -> AxisLine:
        """Return the same entries on a network grid whose voxel 0 is voxel ``offset`` of this one."""
        return AxisLine(self.scan_axis, self.first, self.low - offset, self.high - offset, self.fraction)

    def split(self, size: int) -> list[AxisLine]:
        """Return the entries in parts of at most ``size``."""
        numbers = np.arange(len(self))
        return [self.select((numbers >= start) & (numbers < start + size)) for start in range(0, len(self), size)]


@dataclass(frozen=True, eq=False)
class GridMap:
    """The map from the voxels of a scan to the grid a network worked on.

    Args:
        scan_shape: Voxels of the scan along ``H W D``.
        network_shape: Voxels of the network's grid.
        affine: 4x4 matrix from scan indices to network indices.
        scan_box: Part of the scan that the network saw, if the scan was cropped before it was resampled; the rest
            is background. Default: all of it.

    Raises:
        GeometryError: If the affine is not an invertible 4x4 matrix.
    """

    scan_shape: Triple
    network_shape: Triple
    affine: NDArray[np.float64]
    scan_box: Box | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise GeometryError(
                f"affine must be an invertible 4x4 matrix, got {affine.tolist()}; give scan to network indices"
            )
        object.__setattr__(self, "affine", affine)

    @classmethod
    def between(cls, scan: VolumeGeometry, network: VolumeGeometry, scan_box: Box | None = None) -> GridMap:
        """Return the map between two grids of one world, whatever flips, resampling, crops and pads lie between.

        Args:
            scan: The scan as it was read.
            network: The volume after the spatial transforms, with the affine they left behind.
            scan_box: As in the class.
        """
        affine = np.linalg.inv(network.affine) @ scan.affine
        return cls(scan.shape, network.shape, affine, scan_box)

    @cached_property
    def limits(self) -> Box:
        """Ranges of the scan that may get a label at all."""
        return self.scan_box or ((0, self.scan_shape[0]), (0, self.scan_shape[1]), (0, self.scan_shape[2]))

    @cached_property
    def lines(self) -> tuple[AxisLine, AxisLine, AxisLine] | None:
        """One line per network axis if the grids' axes are parallel (in any order and direction), else None."""
        # What each scan axis adds along each network axis over the whole scan, in network voxels.
        reach = np.abs(self.affine[:3, :3]) * (np.array(self.scan_shape) - 1)
        scan_axes = np.argmax(np.abs(self.affine[:3, :3]), axis=1)
        off_axis = reach.copy()
        off_axis[np.arange(3), scan_axes] = 0
        if sorted(scan_axes) != [0, 1, 2] or off_axis.sum(axis=1).max() > SNAP_VOX:
            return None
        lines = [self._line(axis, int(scan_axis)) for axis, scan_axis in enumerate(scan_axes)]
        return (lines[0], lines[1], lines[2])

    def _line(self, axis: int, scan_axis: int) -> AxisLine:
        low, high = self.limits[scan_axis]
        numbers = np.arange(low, high)
        position = self.affine[axis, scan_axis] * numbers + self.affine[axis, 3]
        below, above, fraction, is_inside = neighbors(position, self.network_shape[axis])
        return AxisLine(scan_axis, low, below, above, fraction).select(is_inside)


def neighbors(
    position: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return low and high neighbor, the weight of the high one, and what lies less than a voxel outside the grid.

    Args:
        position: Continuous indices, any shape.
        size: Voxels along the axis.

    Example:
        >>> low, high, fraction, is_inside = neighbors(np.array([-0.4, 0.25, 2.0, 3.0]), 3)
        >>> low.tolist(), high.tolist(), fraction.tolist(), is_inside.tolist()
        ([0, 0, 2, 2], [0, 1, 2, 2], [0.0, 0.25, 0.0, 0.0], [True, True, True, False])
    """
    nearest = np.rint(position)
    position = np.where(np.abs(position - nearest) < SNAP_VOX, nearest, position)
    is_inside = (position > -1) & (position < size)
    position = np.clip(position, 0, size - 1)
    low = np.floor(position).astype(np.int64)
    return low, np.ceil(position).astype(np.int64), position - low, is_inside
