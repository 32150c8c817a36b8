"""The augmentation of `augment_pipelines` by batchgeneratorsv2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from augment_pipelines import ROTATION_DEGREES, SCALES, Item, Roi, Transformed, plain_cases
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.utils.data import Dataset


def peer_dataset(items: Sequence[Item], prefix: list[Any], roi: Roi) -> Dataset[Any]:
    """Return batchgeneratorsv2's transforms over cases that are in memory."""
    angle = (-ROTATION_DEGREES / 180 * math.pi, ROTATION_DEGREES / 180 * math.pi)
    spatial = SpatialTransform(
        roi,
        patch_center_dist_from_border=[n // 2 for n in roi],
        random_crop=True,
        p_rotation=0.2,
        rotation=angle,
        p_scaling=0.2,
        scaling=SCALES,
        p_synchronize_scaling_across_axes=1,
        mode_seg="nearest",
    )
    factor = BGContrast((0.75, 1.25))
    gamma = {"gamma": BGContrast((0.7, 1.5)), "synchronize_channels": False, "p_per_channel": 1, "p_retain_stats": 1}
    compose = ComposeTransforms(
        [
            spatial,
            RandomTransform(GaussianNoiseTransform((0, 0.1), synchronize_channels=True), 0.1),
            RandomTransform(GaussianBlurTransform((0.5, 1.0)), 0.2),
            RandomTransform(MultiplicativeBrightnessTransform(factor, synchronize_channels=False), 0.15),
            RandomTransform(ContrastTransform(factor, preserve_range=True, synchronize_channels=False), 0.15),
            RandomTransform(SimulateLowResolutionTransform((0.5, 1), False, True, None), 0.25),
            RandomTransform(GammaTransform(p_invert_image=1, **gamma), 0.1),
            RandomTransform(GammaTransform(p_invert_image=0, **gamma), 0.3),
            MirrorTransform((0, 1, 2)),
        ]
    )
    return Transformed(
        plain_cases(items, prefix), lambda case: compose(image=case[0], segmentation=case[1].to(torch.int16))
    )
