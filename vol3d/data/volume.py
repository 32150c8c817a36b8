"""Voxels together with the grid they lie on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vol3d.errors import GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vol3d.geometry import VolumeGeometry


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D scan or labelmap in memory.

    Args:
        array: Voxels ``H W D``, any real or integer type.
        geometry: The grid of ``array``.

    Raises:
        GeometryError: If the array does not have the shape of the grid.
    """

    array: NDArray[Any]
    geometry: VolumeGeometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise GeometryError(
                f"array must have the shape of its geometry {self.geometry.shape}, got {self.array.shape}; "
                "give the affine that belongs to this array"
            )
