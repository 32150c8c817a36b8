"""The augmentation of `augment_pipelines` by TorchIO."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torchio as tio
from augment_pipelines import FRACTION_RESAMPLED, KEYS, ROTATION_DEGREES, SCALES, Item, Roi, Transformed, plain_cases
from monai import transforms as mt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.utils.data import Dataset


def peer_dataset(items: Sequence[Item], prefix: list[Any], roi: Roi) -> Dataset[Any]:
    """Return TorchIO's transforms over cases that are in memory."""
    crop = mt.RandSpatialCropd(KEYS, roi, random_size=False)
    compose = tio.Compose(
        [
            tio.RandomAffine(
                scales=SCALES,
                degrees=ROTATION_DEGREES,
                isotropic=True,
                default_pad_value=0,
                label_interpolation="nearest",
                p=FRACTION_RESAMPLED,
            ),
            tio.RandomFlip(axes=(0, 1, 2), flip_probability=0.5),
            tio.RandomNoise(std=(0, 0.3), p=0.1),
            tio.RandomBlur(std=(0.5, 1.0), p=0.2),
            tio.RandomAnisotropy(downsampling=(1, 2), p=0.25),
            tio.RandomGamma(log_gamma=(math.log(0.7), math.log(1.5)), p=0.3),
        ]
    )

    def augment(case: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        patch = crop(dict(zip(KEYS, case, strict=True)))
        image, label = (patch[key].as_tensor() for key in KEYS)
        subject = compose(tio.Subject(image=tio.ScalarImage(tensor=image), label=tio.LabelMap(tensor=label)))
        return {key: subject[key].data for key in KEYS}

    return Transformed(plain_cases(items, prefix), augment)
