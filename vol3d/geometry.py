"""Where the voxels of a volume are: THE axis convention of vol3d.

* **Index order.** A volume is an array indexed ``[i, j, k]``; its three axes are called ``H W D`` in that
  order (MONAI's letters for the first, second and third spatial axis; they say nothing about anatomy).
  ``B`` is the batch axis and ``C`` the channel axis: an image batch is ``B C H W D``.
* **World.** Millimetres in RAS+ (x to the patient's right, y to anterior, z to superior), as in NIfTI.
  ITK, DICOM and LUNA16 use LPS+: x and y change sign. Names of LPS values say so (``lps_affine``).
* **Affine.** The 4x4 matrix that maps ``(i, j, k, 1)`` of a voxel *centre* to world millimetres.
* **Names.** Coordinates end in ``_vox`` (continuous indices) or ``_world`` (mm, RAS+); lengths in ``_mm``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.errors import GeometryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Multiply an affine by it from the left to change the world from RAS+ to LPS+, or back."""

# The cosine between two axes of a rotated scan is zero but for rounding: NIfTI keeps the sform in float32 and the
# quaternion form loses a little more. 1e-3 is a shear of 0.06 degrees, 0.5 mm at the far side of a 512 mm field.
MAX_AXIS_COSINE = 1e-3

_AXIS_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, eq=False)
class VolumeGeometry:
    """The grid of a volume: how many voxels, and where each of them is.

    Args:
        shape: Voxels along ``H W D``.
        affine: 4x4 matrix from voxel indices to RAS+ millimetres.

    Raises:
        GeometryError: If there are not three axes of at least one voxel each, or the affine is not a finite,
            invertible 4x4 matrix with last row ``0 0 0 1`` and perpendicular axes.

    Example:
        >>> grid = VolumeGeometry((4, 5, 6), np.diag([-0.5, -0.5, 2.0, 1.0]))
        >>> grid.axis_codes, grid.spacing_mm
        ('LPS', (0.5, 0.5, 2.0))
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"shape must have 3 axes of at least 1 voxel, got {shape}; give a 3D volume")
        affine = np.array(self.affine, dtype=np.float64)
        _check_affine(affine)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxel centres along ``H W D``."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    @cached_property
    def axis_codes(self) -> str:
        """Three letters: the anatomical direction in which each of ``H W D`` runs, for example ``LPS``."""
        directions = self.affine[:3, :3] / np.array(self.spacing_mm)
        codes = [""] * 3
        free_axes, free_worlds = {0, 1, 2}, {0, 1, 2}
        # Strongest alignment first, so that two axes of an oblique scan never claim the same direction.
        for flat in np.argsort(-np.abs(directions), axis=None, kind="stable"):
            world, axis = divmod(int(flat), 3)
            if axis in free_axes and world in free_worlds:
                codes[axis] = _AXIS_LETTERS[world][int(directions[world, axis] > 0)]
                free_axes.remove(axis)
                free_worlds.remove(world)
        return "".join(codes)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def lps_affine(self) -> NDArray[np.float64]:
        """The same affine with an LPS+ world, as ITK and DICOM use it."""
        return RAS_TO_LPS @ self.affine

    def to_world(self, points_vox: ArrayLike) -> NDArray[np.float64]:
        """Return RAS+ mm of continuous voxel indices; ``points_vox`` is ``(..., 3)``."""
        points = np.asarray(points_vox, dtype=np.float64)
        return np.asarray(points @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)

    def to_voxel(self, points_world: ArrayLike) -> NDArray[np.float64]:
        """Return continuous voxel indices of RAS+ mm; ``points_world`` is ``(..., 3)``."""
        points = np.asarray(points_world, dtype=np.float64)
        offsets = points - self.affine[:3, 3]
        return np.asarray(offsets @ np.linalg.inv(self.affine[:3, :3]).T, dtype=np.float64)

    def difference(self, other: VolumeGeometry, tolerance_mm: float = 1e-2) -> str | None:
        """Say how another grid differs, or return None if both are the same grid.

        Two grids are the same if their shapes are equal and no corner voxel lies further than ``tolerance_mm``
        from its twin: entries of the affine alone would hide a rotation that only the far corner feels.
        """
        if self.shape != other.shape:
            return f"shape {self.shape} against {other.shape}"
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        corners_vox = corners * (np.array(self.shape) - 1)
        gap_mm = float(np.linalg.norm(self.to_world(corners_vox) - other.to_world(corners_vox), axis=1).max())
        # One-voxel axes have no far corner: compare the spacing too.
        spacing_gap_mm = float(np.abs(np.subtract(self.spacing_mm, other.spacing_mm)).max())
        if max(gap_mm, spacing_gap_mm) <= tolerance_mm:
            return None
        if self.axis_codes != other.axis_codes:
            return f"axis codes {self.axis_codes} against {other.axis_codes}"
        return f"corners {gap_mm:.3g} mm apart (spacing {self.spacing_mm} against {other.spacing_mm} mm)"

    def is_same_grid(self, other: VolumeGeometry, tolerance_mm: float = 1e-2) -> bool:
        """Tell whether every voxel of ``other`` lies within ``tolerance_mm`` of its twin here."""
        return self.difference(other, tolerance_mm) is None

    def crop(self, start: Sequence[int], shape: Sequence[int]) -> VolumeGeometry:
        """Return the grid of a box of ``shape`` voxels whose first voxel has index ``start`` (may be negative)."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(np.asarray(start, dtype=np.float64))
        return VolumeGeometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def as_dict(self) -> dict[str, Any]:
        """Return shape, spacing, axis codes and affine as plain JSON values, units in the names."""
        return {
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            "axis_codes": self.axis_codes,
            "affine_ras_mm": self.affine.tolist(),
        }


def _check_affine(affine: NDArray[np.float64]) -> None:
    if affine.shape != (4, 4):
        raise GeometryError(f"affine must be a 4x4 matrix, got shape {affine.shape}; give voxel-to-world RAS+ mm")
    if not np.isfinite(affine).all():
        raise GeometryError("affine must be finite, got NaN or Inf; repair the image header")
    if not np.allclose(affine[3], [0, 0, 0, 1]):
        raise GeometryError(f"affine must end with the row 0 0 0 1, got {affine[3].tolist()}; repair the header")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing <= 0).any():
        raise GeometryError(f"spacing must be positive, got {spacing.tolist()} mm; repair the image header")
    directions = affine[:3, :3] / spacing
    if abs(np.linalg.det(directions)) < 1e-6:
        raise GeometryError("affine must be invertible, got a singular matrix; repair the image header")
    cosine = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if cosine > MAX_AXIS_COSINE:
        raise GeometryError(
            f"affine must have perpendicular axes, got a shear (cosine {cosine:.3g}); "
            "resample the volume to a grid without shear first"
        )
