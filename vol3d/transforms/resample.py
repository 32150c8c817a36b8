"""Read a volume along a `SpatialField`: image values linearly, labels from the nearest voxel or by class.

The CPU has a kernel of its own (`trilinear_kernel`); other devices use one ``grid_sample``. Both agree to rounding. A
field that only crops, pads and flips is copied, with the same result.

Outside the volume a constant is blended in over one voxel (SciPy's ``grid-constant``), or the border repeats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vol3d.errors import GeometryError
from vol3d.transforms.trilinear_kernel import BoxCoordinates, clamp_to_border, flat_index, read_by_slabs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vol3d.transforms.spatial_field import SpatialField


@dataclass(frozen=True)
class ReadingRule:
    """How volumes are read.

    Args:
        outside_value: Image value outside the volume.
        is_border: The image repeats its border instead.
        num_label_classes: None takes the nearest voxel's label. A number interpolates the indicator of each class
            ``0 .. num_label_classes - 1`` linearly and takes the largest, the smaller class in a tie; any other
            label becomes 0.
    """

    outside_value: float = 0.0
    is_border: bool = False
    num_label_classes: int | None = None


def resample(
    image: torch.Tensor,
    label: torch.Tensor | None,
    field: SpatialField,
    rule: ReadingRule,
    elastic: Sequence[torch.Tensor] = (),
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Read an image and its labelmap.

    Args:
        image: ``C H W D``, any real dtype and device.
        label: ``1 H W D``, any dtype, the shape and device of the image, or None.
        field: Where to read.
        rule: How to read.
        elastic: The field's ``elastic_arrays`` as float32 tensors on the device.

    Returns:
        The image as float32 and the label in its dtype, each with the field's ``roi_size``: new tensors. The label
        holds no value that ``label`` (or 0) does not hold.

    Raises:
        GeometryError: If the patch reads 2^31 voxels or more.
    """
    if field.is_on_grid:
        new_label = None if label is None else _crop(label, field, ReadingRule(), label.dtype)
        return _crop(image, field, rule, torch.float32), new_label
    if label is not None and rule.num_label_classes is not None:
        new_label = _vote(label, field, rule.num_label_classes, elastic)
        return resample(image, None, field, rule, elastic)[0], new_label
    box = _box(image, field)
    image_box = _padded(image, box, rule.outside_value, torch.float32)
    label_box = None if label is None else _padded(label, box, 0, label.dtype)
    moved = field.seen_from([begin - 1 for begin, _ in box])
    coordinates = BoxCoordinates(moved, elastic, image_box.shape[1:], image.device)
    read = read_by_slabs if image.device.type == "cpu" else _read_by_grid_sample
    new_image, new_nearest = read(image_box, label_box, coordinates, rule.is_border)
    shape = (-1, *field.roi_size)
    return new_image.view(shape), None if new_nearest is None else new_nearest.view(shape)


def _box(volume: torch.Tensor, field: SpatialField) -> tuple[tuple[int, int], ...]:
    """Return the voxels that a patch reads, which must be few enough for 32-bit indices."""
    box = field.source_box(volume.shape[1:])
    num_voxels = math.prod(end - begin + 3 for begin, end in box)
    if num_voxels >= 2**31:
        raise GeometryError(
            f"patch must read less than 2^31 voxels of its volume, got {num_voxels}; lower roi_size or raise the scale"
        )
    return box


def _vote(
    label: torch.Tensor,
    field: SpatialField,
    num_classes: int,
    elastic: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Return the class with the largest interpolated indicator; one class is held at a time."""
    best = torch.full((1, *field.roi_size), -1.0, device=label.device)
    winner = torch.zeros_like(best, dtype=label.dtype)
    for number in range(num_classes):
        rule = ReadingRule(outside_value=float(number == 0))
        share, _ = resample(label == number, None, field, rule, elastic)
        winner.masked_fill_(share > best, number)
        torch.maximum(best, share, out=best)
    return winner


def _crop(volume: torch.Tensor, field: SpatialField, rule: ReadingRule, dtype: torch.dtype) -> torch.Tensor:
    """Return crop, padding and flips by copying, without any arithmetic on values but their conversion."""
    flipped = [axis for axis in range(3) if field.matrix[axis, axis] < 0]
    starts = [int(first) - (field.roi_size[axis] - 1) * (axis in flipped) for axis, first in enumerate(field.origin)]
    if rule.is_border:
        result = volume
        for axis, (start, roi) in enumerate(zip(starts, field.roi_size, strict=True)):
            index = torch.arange(start, start + roi, device=volume.device).clamp_(0, volume.shape[axis + 1] - 1)
            result = result.index_select(axis + 1, index)
        result = result.to(dtype)
    else:
        result = volume.new_empty((volume.shape[0], *field.roi_size), dtype=dtype)
        sources, targets = [slice(None)], [slice(None)]
        for start, roi, size in zip(starts, field.roi_size, volume.shape[1:], strict=True):
            low = max(start, 0)
            high = max(min(start + roi, size), low)
            sources.append(slice(low, high))
            targets.append(slice(low - start, high - start))
        if result[tuple(targets)].shape != result.shape:
            result.fill_(rule.outside_value)
        result[tuple(targets)] = volume[tuple(sources)]
    return result.flip([axis + 1 for axis in flipped]) if flipped else result


def _padded(volume: torch.Tensor, box: Sequence[tuple[int, int]], value: float, dtype: torch.dtype) -> torch.Tensor:
    """Return a box of the volume with one voxel of padding before and two after each axis."""
    part = volume[(slice(None), *(slice(*ends) for ends in box))]
    padded = part.new_empty((part.shape[0], *(n + 3 for n in part.shape[1:])), dtype=dtype)
    for axis in (1, 2, 3):
        # Only the faces: filling all of it would write every voxel twice.
        padded.narrow(axis, 0, 1).fill_(value)
        padded.narrow(axis, part.shape[axis] + 1, 2).fill_(value)
    padded[:, 1:-2, 1:-2, 1:-2] = part
    return padded


def _read_by_grid_sample(
    image: torch.Tensor,
    label: torch.Tensor | None,
    coordinates: BoxCoordinates,
    is_border: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    source = image.new_empty((3, coordinates.num_rows, coordinates.plane_size))
    coordinates.write(slice(0, coordinates.num_rows), source)
    new_label = None
    if label is not None:
        # By index like on the CPU: grid_sample rounds ties the other way and knows no integers.
        floors = (source + 0.5).floor_()
        index = flat_index(floors, torch.empty_like(floors, dtype=torch.int32), label)
        new_label = label.view(-1).index_select(0, index)
    if is_border:
        clamp_to_border(source, image.shape[1:])
    for part, size in zip(source, image.shape[1:], strict=True):
        # grid_sample calls the outermost centers -1 and 1.
        part.mul_(2.0 / (size - 1)).sub_(1.0)
    # It counts axes from the last one.
    grid = source.flip(0).movedim(0, -1).contiguous()[None, :, None]
    return F.grid_sample(image[None], grid.to(image.dtype), mode="bilinear", align_corners=True)[0], new_label
