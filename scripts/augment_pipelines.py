"""The same augmentation by vol3d and by MONAI, and what all libraries share in the benchmarks.

Operations, probabilities and ranges are those of nnU-Net v2's default trainer: rotation, scaling, flips, noise, blur,
brightness, contrast, low resolution, two gamma curves. Where a library cannot do the same, the difference favours it:

* MONAI draws rotation and scaling with one probability, so both share one resampling;
* TorchIO has no brightness, contrast or inverted gamma: it does without, and vol3d is timed without them too.

Every library gets deterministic results from memory, and crops before it resamples, except vol3d and
batchgeneratorsv2, which crop while they resample (borders are real there, not padding).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from monai import transforms as mt
from monai.data import CacheDataset, DataLoader
from torch.utils.data import Dataset, RandomSampler

from vol3d.data.augmented_loader import AugmentedLoader
from vol3d.data.ragged_batch import collate_ragged
from vol3d.transforms.augment_settings import IntensitySettings, SpatialSettings
from vol3d.transforms.batch_augment import BatchAugment

if TYPE_CHECKING:
    from vol3d.data.volume_cache_dataset import VolumeCacheDataset

KEYS = ["image", "label"]
ROTATION_DEGREES = 30.0
SCALES = (0.7, 1.4)
FRACTION_RESAMPLED = 1 - (1 - 0.2) * (1 - 0.2)
NOT_IN_TORCHIO = {"brightness_probability": 0.0, "contrast_probability": 0.0, "gamma_inverted_probability": 0.0}

Item = Mapping[str, Any]
Roi = tuple[int, int, int]


def deterministic(window_hu: tuple[float, float] | None, roi: Roi | None) -> list[Any]:
    """Return what every pipeline keeps in its cache; with ``roi`` also padded to at least this size."""
    intensity = mt.NormalizeIntensityd("image")
    if window_hu is not None:
        intensity = mt.ScaleIntensityRanged("image", *window_hu, 0, 1, clip=True)
    pad = [mt.SpatialPadd(KEYS, roi)] if roi else []
    loading = [mt.LoadImaged(KEYS), mt.EnsureChannelFirstd(KEYS), mt.Orientationd(KEYS, axcodes="RAS", labels=None)]
    return [*loading, intensity, *pad]


def vol3d_augment(roi: Roi, *, as_torchio: bool = False) -> BatchAugment:
    """Return the same operations in vol3d."""
    intensity = IntensitySettings(**(NOT_IN_TORCHIO if as_torchio else {}))
    return BatchAugment(roi, SpatialSettings(is_random_crop=True), intensity)


class Vol3dBatches:
    """Ragged batches from the case cache, augmented as a whole in this process."""

    def __init__(self, dataset: VolumeCacheDataset, augment: BatchAugment, batch_size: int) -> None:
        self.augment = augment
        self.loader = make_loader(dataset, batch_size, 0, collate_fn=collate_ragged)
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of one epoch."""
        self.epoch += 1
        for batch in self.loader:
            yield self.augment(batch, self.epoch)


class Vol3dWorkers:
    """The same, each batch augmented by a worker."""

    def __init__(self, dataset: VolumeCacheDataset, augment: BatchAugment, batch_size: int, num_workers: int) -> None:
        self.loader = AugmentedLoader(dataset, augment, RandomSampler(dataset), batch_size, num_workers, epoch=0)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of one epoch."""
        self.loader.epoch = (self.loader.epoch or 0) + 1
        yield from self.loader


def make_loader(dataset: Any, batch_size: int, num_workers: int, **options: Any) -> DataLoader:
    """Return a loader whose workers stay alive between epochs."""
    options |= {"batch_size": batch_size, "num_workers": num_workers, "persistent_workers": num_workers > 0}
    return DataLoader(dataset, shuffle=True, **options)


def monai_dataset(items: Sequence[Item], prefix: list[Any], roi: Roi) -> CacheDataset:
    """Return MONAI's cached data set with per-sample dictionary transforms."""
    radians = (ROTATION_DEGREES / 180 * math.pi,) * 3
    random = [
        mt.RandSpatialCropd(KEYS, roi, random_size=False),
        mt.RandAffined(
            KEYS,
            prob=FRACTION_RESAMPLED,
            rotate_range=radians,
            scale_range=((SCALES[0] - 1, SCALES[1] - 1),) * 3,
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
        ),
        *(mt.RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)),
        mt.RandGaussianNoised("image", prob=0.1, std=0.3),
        mt.RandGaussianSmoothd("image", (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.2),
        mt.RandScaleIntensityd("image", factors=0.25, prob=0.15),
        mt.RandScaleIntensityFixedMeand("image", factors=0.25, preserve_range=True, prob=0.15),
        mt.RandSimulateLowResolutiond("image", prob=0.25, zoom_range=(0.5, 1.0)),
        mt.RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
        mt.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    ]
    return CacheDataset(items, mt.Compose([*prefix, *random]), progress=False)


class Transformed(Dataset[Any]):
    """Cases in memory under one function."""

    def __init__(self, cases: Sequence[Any], transform: Any) -> None:
        self.cases = cases
        self.transform = transform

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.cases[index])


def plain_cases(items: Sequence[Item], prefix: list[Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return image and label of every case after the deterministic transforms, without metadata."""
    compose = mt.Compose(prefix)
    return [tuple(case[key].as_tensor().clone() for key in KEYS) for case in map(compose, items)]


def drain(batches: Iterable[Any]) -> None:
    """Read one epoch."""
    for _ in batches:
        pass
