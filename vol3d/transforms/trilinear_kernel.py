"""The CPU's kernel for reading volumes along a `SpatialField`, and the coordinates it reads.

``torch.nn.functional.grid_sample`` is neither vectorized nor threaded within a 3D sample on the CPU. Here eight
neighbors are read by ``index_select`` and blended with vectorized arithmetic; image and label share their coordinates.
One affine 96^3 patch took 10 ms of one core where grid and ``grid_sample`` took 24 ms.

A *box* is a part of a volume with one voxel of padding before and two after each axis, contiguous ``C h w d``. The
outer one of the two after is never blended in: it makes the upper neighbor of the last coordinate exist.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vol3d.transforms.spatial_field import SpatialField

# Voxels handled at a time: the temporaries then stay in the second-level cache.
SLAB_VOXELS = 65536


class BoxCoordinates:
    """Coordinates of a patch in a box, made slab by slab.

    Args:
        field: Where to read, in voxels of the box.
        elastic: The field's ``elastic_arrays`` as float32 tensors on the device, empty without deformation.
        box_shape: ``h w d``.
        device: Of the coordinates.
    """

    def __init__(
        self, field: SpatialField, elastic: Sequence[torch.Tensor], box_shape: torch.Size, device: torch.device
    ) -> None:
        num_rows, *plane_shape = field.roi_size
        self.num_rows, self.plane_size = num_rows, math.prod(plane_shape)
        self._limits = [float(size - 2) for size in box_shape]
        rows_h, rows_w, rows_d = (torch.arange(n, dtype=torch.float32, device=device) for n in field.roi_size)
        self._columns, self._planes = [], []
        for axis in range(3):
            along_h, along_w, along_d = field.matrix[axis].tolist()
            plane = (rows_w * along_w)[:, None] + (rows_d * along_d + float(field.origin[axis]))
            self._planes.append(plane.view(1, self.plane_size))
            self._columns.append(rows_h[:, None] * along_h)
        self._elastic: tuple[torch.Tensor, torch.Tensor] | None = None
        if elastic:
            control, basis_h, basis_w, basis_d = elastic
            spread = basis_w @ (control @ basis_d.T)
            self._elastic = basis_h, spread.view(3, control.shape[1], self.plane_size)

    def write(self, rows: slice, out: torch.Tensor) -> None:
        """Write the coordinates of these rows to ``out``, ``3 x rows x (W D)``, kept within the box."""
        for axis, limit in enumerate(self._limits):
            torch.add(self._columns[axis][rows], self._planes[axis], out=out[axis])
            if self._elastic is not None:
                basis_h, spread = self._elastic
                out[axis].addmm_(basis_h[rows], spread[axis])
            out[axis].clamp_(0.0, limit)


def read_by_slabs(
    image: torch.Tensor, label: torch.Tensor | None, coordinates: BoxCoordinates, is_border: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Read an image linearly and a label from the nearest voxel, on the CPU.

    Args:
        image: Box of the image, ``C h w d`` float32.
        label: Box of the label, ``1 h w d`` of any dtype, or None.
        coordinates: Where to read.
        is_border: The image repeats its border instead of blending into the padding.

    Returns:
        Image ``C x H x (W D)`` and label ``1 x H x (W D)`` (or None), new tensors.
    """
    num_rows, plane = coordinates.num_rows, coordinates.plane_size
    new_image = image.new_empty((image.shape[0], num_rows, plane))
    new_label = None if label is None else label.new_empty((1, num_rows, plane))
    step = min(max(1, SLAB_VOXELS // plane), num_rows)
    scratch = image.new_empty((2, 3 * step * plane))
    scratch_cells = torch.empty(3 * step * plane, dtype=torch.int32)
    for begin in range(0, num_rows, step):
        rows = slice(begin, min(begin + step, num_rows))
        shape = (3, rows.stop - rows.start, plane)
        source, floor, cell = (part[: math.prod(shape)].view(shape) for part in (*scratch, scratch_cells))
        coordinates.write(rows, source)
        if label is not None and new_label is not None:
            torch.add(source, 0.5, out=floor).floor_()
            index = flat_index(floor, cell, label)
            torch.index_select(label.view(-1), 0, index, out=new_label[0, rows].view(-1))
        if is_border:
            clamp_to_border(source, image.shape[1:])
        torch.floor(source, out=floor)
        source.sub_(floor)
        index = flat_index(floor, cell, image)
        # Floors and the other cells have served: their memory takes the neighbors, so that a slab fits the cache.
        buffers = [*floor.view(3, -1), cell[1].view(torch.float32).view(-1)]
        for channel, target in zip(image, new_image, strict=True):
            _blend(channel, index, source.view(3, -1), buffers, target[rows].view(-1))
    return new_image, new_label


def clamp_to_border(source: torch.Tensor, box_shape: torch.Size) -> None:
    """Move coordinates in the padding to the nearest voxel of the volume, in place."""
    for part, size in zip(source, box_shape, strict=True):
        part.clamp_(1.0, size - 3.0)


def flat_index(floors: torch.Tensor, cells: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Return indices into a flattened box; integers, as float32 could not count its voxels.

    Args:
        floors: Whole coordinates ``3 x ...`` as floats.
        cells: Integers of the same shape, overwritten; the result is a view of them.
        box: The box.
    """
    cells.copy_(floors)
    cells[0].mul_(box.stride(1)).add_(cells[1], alpha=box.stride(2)).add_(cells[2])
    return cells[0].view(-1)


def _blend(
    channel: torch.Tensor, index: torch.Tensor, parts: torch.Tensor, buffers: list[torch.Tensor], out: torch.Tensor
) -> None:
    """Write the trilinear blend of the eight neighbors at ``index``; the four buffers have its length."""
    flat, (stride_h, stride_w, _) = channel.view(-1), channel.stride()
    front, back, other, upper = buffers
    for shift, face in ((0, front), (stride_h, back)):
        for start, edge in ((shift, face), (shift + stride_w, other)):
            torch.index_select(flat[start:], 0, index, out=edge)
            torch.index_select(flat[start + 1 :], 0, index, out=upper)
            edge.lerp_(upper, parts[2])
        face.lerp_(other, parts[1])
    torch.lerp(front, back, parts[0], out=out)
