"""Augmentation of a whole batch on the device where it lies.

One fused resampling per sample (`spatial_field`, `resample`), then the drawn operations on values
(`intensity_augment`). What a sample gets is decided by (seed, epoch, case, draw) alone (`augment_draw`).

The batch is a mapping with

* the image: ``B C H W D`` of any real dtype, or a list of ``C H W D`` that may differ in size;
* optionally the label: ``B 1 H W D``, or a list; integers or floats that hold integers;
* ``case``: one name or number per sample;
* optionally ``draw``: one number per sample, where a case occurs more than once (several patches of one volume). If
  it is missing, the occurrences of a case in the batch are counted from 0;
* optionally ``center_vox``: three indices per sample, ``B x 3``, where the patch lies (`balanced_patches`);
* optionally ``spacing_mm``: three lengths per sample, ``B x 3``.

A dataset gives the last two as arrays: torch's default collation turns a batch of tuples into ``3 x B``.

``case``, ``draw``, ``center_vox`` and ``spacing_mm`` belong on the host: reading them from a GPU would wait for it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from vol3d.errors import ConfigError, GeometryError
from vol3d.transforms.augment_draw import AugmentDraw, Parameters, SampleIdentity, occurrences
from vol3d.transforms.augment_settings import IntensitySettings, SpatialSettings
from vol3d.transforms.intensity_augment import augment_intensity, intensity_arrays
from vol3d.transforms.parameter_upload import upload_arrays
from vol3d.transforms.resample import ReadingRule, resample
from vol3d.transforms.serial_threads import serial_threads
from vol3d.transforms.spatial_field import spatial_field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class BatchAugment:
    """Random augmentation of batches, reproducible and replayable.

    Args:
        roi_size: Voxels of the augmented patches along ``H W D``; larger volumes are cropped, smaller ones padded.
        spatial: Geometric operations; None means `SpatialSettings()`.
        intensity: Operations on values; None means `IntensitySettings()`.
        image_key: Where the batch holds the image.
        label_key: Where the batch may hold the label.
        seed: Number of the whole experiment.

    Raises:
        ConfigError: If ``roi_size`` is not three positive numbers.

    Example:
        >>> augment = BatchAugment((8, 8, 8), seed=1)
        >>> batch = {"image": torch.rand(2, 1, 10, 9, 8), "case": ["a", "b"]}
        >>> augment(batch, epoch=1)["image"].shape
        torch.Size([2, 1, 8, 8, 8])
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        spatial: SpatialSettings | None = None,
        intensity: IntensitySettings | None = None,
        image_key: str = "image",
        label_key: str = "label",
        seed: int = 0,
    ) -> None:
        roi = tuple(int(n) for n in roi_size)
        if len(roi) != 3 or min(roi) < 1:
            raise ConfigError(f"roi_size must be 3 positive numbers, got {tuple(roi_size)}; give voxels along H W D")
        self.roi_size: tuple[int, int, int] = roi
        self.spatial = spatial or SpatialSettings()
        self.intensity = intensity or IntensitySettings()
        self.image_key = image_key
        self.label_key = label_key
        self.seed = int(seed)
        self._draw = AugmentDraw(roi, self.spatial, self.intensity, self.seed)
        self._rule = ReadingRule(
            self.spatial.padding_value, self.spatial.padding == "border", self.spatial.num_label_classes
        )

    def __call__(
        self, batch: Mapping[str, Any], epoch: int, out: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, Any]:
        """Return the batch with image and label augmented; other entries are passed on. Its tensors are not changed.

        Args:
            batch: See the module's docstring.
            epoch: Number of the epoch.
            out: Where to write image and label, for at least as many samples; None takes new memory.
        """
        return self.apply(batch, self.parameters_of(batch, epoch), out)

    def parameters_of(self, batch: Mapping[str, Any], epoch: int) -> list[Parameters]:
        """Return what `__call__` would apply to each sample."""
        images = self._volumes(batch, self.image_key)
        if "case" not in batch:
            raise ConfigError("case must name each sample of the batch, got none; let the dataset pass its case on")
        return self.draw(
            _host_list(batch["case"], "case"),
            epoch,
            [tuple(image.shape[1:]) for image in images],
            draws=_host_list(batch["draw"], "draw") if "draw" in batch else None,
            spacings_mm=_host_rows(batch["spacing_mm"], "spacing_mm") if "spacing_mm" in batch else None,
            centers_vox=_host_rows(batch["center_vox"], "center_vox") if "center_vox" in batch else None,
        )

    def draw(
        self,
        cases: Sequence[str | int],
        epoch: int,
        shapes: Sequence[Sequence[int]],
        draws: Sequence[int] | None = None,
        spacings_mm: Sequence[Sequence[float]] | None = None,
        centers_vox: Sequence[Sequence[int]] | None = None,
    ) -> list[Parameters]:
        """Return the parameters of samples as plain values; see `augment_draw` for their meaning.

        Args:
            cases: Name or number of each sample's case.
            epoch: Number of the epoch.
            shapes: Voxels of each sample's volume along ``H W D``.
            draws: Tells samples of one case apart; None counts the occurrences of each case from 0.
            spacings_mm: Voxel sizes; None takes those of the settings.
            centers_vox: Where the patches lie; None leaves that to the settings.

        Raises:
            ConfigError: If the arguments do not all have one entry per sample.
        """
        columns = {"shapes": shapes, "draw": draws, "spacing_mm": spacings_mm, "center_vox": centers_vox}
        for name, column in columns.items():
            if column is not None and len(column) != len(cases):
                raise ConfigError(
                    f"{name} must have one entry per case ({len(cases)}), got {len(column)}; check the batch"
                )
        names = _host_list(cases, "case")
        counted = occurrences(names)
        parameters = []
        for number, case in enumerate(names):
            sample = SampleIdentity(
                case=case,
                draw=counted[number] if draws is None else int(draws[number]),
                epoch=int(epoch),
                shape=_triple(int(n) for n in shapes[number]),
                spacing_mm=_triple(float(v) for v in (spacings_mm[number] if spacings_mm else self.spatial.spacing_mm)),
                center_vox=_triple(int(n) for n in centers_vox[number]) if centers_vox else None,
            )
            parameters.append(self._draw(sample))
        return parameters

    @torch.no_grad()
    def apply(
        self,
        batch: Mapping[str, Any],
        parameters: Sequence[Parameters],
        out: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, Any]:
        """Return the batch augmented with these parameters: a replay of what `draw` listed."""
        images, labels = self._images_and_labels(batch)
        if len(parameters) != len(images):
            raise ConfigError(
                f"parameters must have one entry per sample ({len(images)}), got {len(parameters)}; check the batch"
            )
        fields = [spatial_field(self.roi_size, drawn) for drawn in parameters]
        arrays = upload_arrays(
            [
                {"elastic": field.elastic_arrays, **intensity_arrays(self.roi_size, drawn["intensity"])}
                for field, drawn in zip(fields, parameters, strict=True)
            ],
            images[0].device,
        )
        rooms = self._rooms(images, labels) if out is None else {key: room[: len(images)] for key, room in out.items()}
        result = {**batch, **rooms}

        def augment_sample(number: int) -> None:
            # Written here, not stacked at the end: that would be one more pass, split up by torch over all cores.
            label = None if labels is None else labels[number]
            new_image, new_label = resample(
                images[number], label, fields[number], self._rule, arrays[number]["elastic"]
            )
            drawn = parameters[number]["intensity"]
            result[self.image_key][number].copy_(augment_intensity(new_image, drawn, arrays[number]))
            if new_label is not None:
                result[self.label_key][number].copy_(new_label)

        device = images[0].device.type
        pool = serial_threads() if device == "cpu" else None
        # Reduced precision is for the network: half a voxel is lost in a coordinate of 500 kept in float16.
        precise = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
        with precise:
            list((pool.map if pool else map)(torch.no_grad()(augment_sample), range(len(images))))
        return result

    def _rooms(self, images: Sequence[torch.Tensor], labels: Sequence[torch.Tensor] | None) -> dict[str, torch.Tensor]:
        """Return new memory for the patches of a batch."""
        rooms = {self.image_key: _empty(images, self.roi_size, torch.float32)}
        if labels is not None:
            rooms[self.label_key] = _empty(labels, self.roi_size, labels[0].dtype)
        return rooms

    def _images_and_labels(self, batch: Mapping[str, Any]) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
        """Return the samples of image and label, which must belong together."""
        images = self._volumes(batch, self.image_key)
        if self.label_key not in batch:
            return images, None
        labels = self._volumes(batch, self.label_key)
        if len(labels) != len(images):
            raise ConfigError(
                f"{self.label_key} must have one entry per image ({len(images)}), got {len(labels)}; check the batch"
            )
        for image, label in zip(images, labels, strict=True):
            if label.shape != (1, *image.shape[1:]):
                raise GeometryError(
                    f"{self.label_key} must have one channel on its image's grid {(1, *image.shape[1:])}, got "
                    f"{tuple(label.shape)}; make a labelmap on that grid first"
                )
            if label.device != image.device:
                raise ConfigError(
                    f"{self.label_key} must lie on its image's device {image.device}, got {label.device}; move both"
                )
        return images, labels

    def _volumes(self, batch: Mapping[str, Any], key: str) -> list[torch.Tensor]:
        """Return the samples of one entry as plain ``C H W D`` tensors."""
        if key not in batch:
            raise ConfigError(f"batch must hold {key!r}, got {sorted(map(str, batch))}; name the key it has")
        column = batch[key]
        if isinstance(column, torch.Tensor):
            # Before it is split: each slice of a MetaTensor would copy its metadata.
            column = column.as_subclass(torch.Tensor)
        volumes = [volume.as_subclass(torch.Tensor) for volume in column]
        if not volumes:
            raise ConfigError(f"{key} must hold at least one sample, got none; check the batch")
        for volume in volumes:
            if volume.ndim != 4 or min(volume.shape) < 1 or volume.is_complex():
                raise GeometryError(
                    f"{key} must be real volumes C H W D in a batch or list, got shape {tuple(volume.shape)} and "
                    f"dtype {volume.dtype}; add the channel axis"
                )
            kinds = [(v.shape[0], v.dtype, v.device) for v in (volumes[0], volume)]
            if kinds[0] != kinds[1]:
                raise ConfigError(
                    f"{key} must have the same channels, dtype and device in all samples, got {kinds[0]} and "
                    f"{kinds[1]}; convert them before the batch is made"
                )
        return volumes


def _empty(volumes: Sequence[torch.Tensor], roi_size: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return room for one patch of each volume."""
    return volumes[0].new_empty((len(volumes), volumes[0].shape[0], *roi_size), dtype=dtype)


def _triple(values: Any) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third


def _host_list(column: Any, name: str) -> list[Any]:
    """Return one entry per sample from a list, array or host tensor."""
    if isinstance(column, torch.Tensor):
        if column.device.type != "cpu":
            raise ConfigError(f"{name} must lie on the host, got a tensor on {column.device}; move only volumes to it")
        return list(column.tolist())
    return [value.item() if hasattr(value, "item") else value for value in column]


def _host_rows(column: Any, name: str) -> list[list[Any]]:
    """Return three entries per sample from nested lists, arrays or host tensors."""
    return [_host_list(row, name) for row in column]
