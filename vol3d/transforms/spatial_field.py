"""Where each voxel of an augmented patch reads the volume: one field per sample, composed of all its operations.

Output voxel ``o`` reads the volume at (voxel indices, ``H W D``)::

    source(o) = center + A (F (o - c) + u(o)) - translation,      A = S^-1 R K Z S

``c`` is the center of the patch and ``center`` the same point of the unmoved volume; ``F`` flips, ``u`` is the elastic
displacement, ``S`` = diag(spacing_mm) goes to the world's millimeters, ``Z`` = diag(1 / scale), ``K`` the shear and
``R = Rx(a0) Ry(a1) Rz(a2)`` the rotation (MONAI's ``create_rotate``).
``u`` is evaluated before ``A``, so a displacement that does not fold stays so under any affine map. ``u`` interpolates
control points by uniform cubic B-splines, which never leave the range of their control points.

Everything here is NumPy on the host, in float64, and small; voxels are visited in `resample`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vol3d.transforms.augment_draw import Parameters, stream

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SpatialField:
    """The source coordinates of a patch, in a form that costs nothing until voxels are read.

    Args:
        roi_size: Voxels of the patch along ``H W D``.
        matrix: 3x3; source voxels per voxel of the patch.
        origin: Source coordinates of the patch's first voxel, without elastic displacement.
        control: Elastic displacement in source voxels at the control points, ``3 x n0 x n1 x n2``, or None.
        basis: For each axis the weight of each control point at each voxel, ``roi x n``; empty without control points.
    """

    roi_size: tuple[int, int, int]
    matrix: Array
    origin: Array
    control: Array | None = None
    basis: tuple[Array, ...] = ()

    @property
    def is_on_grid(self) -> bool:
        """Whether every voxel of the patch is one voxel of the volume: only crop, padding and flips."""
        is_flip = np.array_equal(np.abs(self.matrix), np.eye(3))
        return self.control is None and is_flip and np.array_equal(self.origin, np.round(self.origin))

    def source_box(self, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Return, per axis, the ``(first, past last)`` voxels of a volume of this shape that the patch may read.

        The box has at least one voxel, also where the patch lies outside the volume altogether.
        """
        steps = self.matrix * (np.array(self.roi_size) - 1)
        low = self.origin + np.minimum(steps, 0).sum(1)
        high = self.origin + np.maximum(steps, 0).sum(1)
        if self.control is not None:
            reach = np.abs(self.control).max(axis=(1, 2, 3))
            low, high = low - reach, high + reach
        box = []
        # One voxel more on each side: neighbors of the interpolation, and rounding of float32 coordinates.
        for first, last, size in zip(np.floor(low) - 1, np.ceil(high) + 1, shape, strict=True):
            begin = int(np.clip(first, 0, size - 1))
            box.append((begin, int(np.clip(last + 1, begin + 1, size))))
        return tuple(box)

    def seen_from(self, corner: Sequence[int]) -> SpatialField:
        """Return the same field for a part of the volume that begins at this voxel."""
        return replace(self, origin=self.origin - np.array(corner))

    @property
    def elastic_arrays(self) -> tuple[Array, ...]:
        """Control points and the bases along ``H W D``, or nothing without elastic displacement."""
        return () if self.control is None else (self.control, *self.basis)

    def coordinates(self) -> Array:
        """Return all source coordinates, ``3 x H x W x D`` in float64: for inspection and tests, not for speed."""
        index = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in self.roi_size), indexing="ij"))
        source: Array = np.tensordot(self.matrix, index, 1) + self.origin[:, None, None, None]
        if self.control is not None:
            source += np.einsum("aijk,hi,wj,dk->ahwd", self.control, *self.basis, optimize=True)
        return source


def spatial_field(roi_size: tuple[int, int, int], parameters: Parameters) -> SpatialField:
    """Return the field of one sample from its drawn parameters; see the module's docstring for the formula."""
    drawn = parameters["spatial"]
    spacing = np.array(parameters["spacing_mm"], dtype=np.float64)
    half = (np.array(roi_size, dtype=np.float64) - 1) / 2
    world = np.eye(3)
    if "rotation_degrees" in drawn:
        world = world @ rotation_matrix(drawn["rotation_degrees"])
    if "shear" in drawn:
        world = world @ shear_matrix(drawn["shear"])
    if "scale" in drawn:
        world = world @ np.diag(1 / np.array(drawn["scale"]))
    affine = world / spacing[:, None] * spacing[None, :]
    # The identity must stay exact, and spacing / spacing need not be 1.
    affine = np.where(np.eye(3, dtype=bool), np.diag(world)[:, None], affine)
    flips = np.array([-1.0 if axis in drawn.get("flip_axes", ()) else 1.0 for axis in range(3)])
    matrix = affine * flips[None, :]
    origin = (
        np.array(parameters["start_vox"]) + half - matrix @ half - np.array(drawn.get("translation_vox", (0, 0, 0)))
    )
    if "elastic" not in drawn:
        return SpatialField(roi_size, matrix, origin)
    control, basis = _elastic(roi_size, spacing, drawn["elastic"])
    return SpatialField(roi_size, matrix, origin, np.tensordot(affine, control, 1), basis)


def rotation_matrix(degrees: Sequence[float]) -> Array:
    """Return ``Rx Ry Rz`` for angles about the first, second and third axis."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z, dtype=np.float64)


def shear_matrix(shear: Sequence[float]) -> Array:
    """Return the matrix with ones on the diagonal and six shears, row by row, elsewhere."""
    xy, xz, yx, yz, zx, zy = shear
    return np.array([[1, xy, xz], [yx, 1, yz], [zx, zy, 1]], dtype=np.float64)


def cubic_basis(size: int, step: float) -> Array:
    """Return the weights ``size x n`` of uniform cubic B-splines whose knots are ``step`` voxels apart.

    Each row has four entries that sum to 1; the control points reach one knot beyond both ends.
    """
    position = np.arange(size) / step
    knot = np.floor(position).astype(int)
    t = position - knot
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    basis = np.zeros((size, math.floor((size - 1) / step) + 4))
    for offset in range(4):
        basis[np.arange(size), knot + offset] = weights[offset]
    return basis


def _elastic(roi_size: tuple[int, int, int], spacing: Array, elastic: Parameters) -> tuple[Array, tuple[Array, ...]]:
    """Return displacements in voxels at the control points, and the basis of each axis."""
    basis = tuple(
        cubic_basis(n, elastic["control_spacing_mm"] / mm) for n, mm in zip(roi_size, spacing.tolist(), strict=True)
    )
    shape = (3, *(b.shape[1] for b in basis))
    control_mm = stream(elastic["seed"], "control points").uniform(-1, 1, shape) * elastic["displacement_mm"]
    return control_mm / spacing[:, None, None, None], basis
