from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from vol3d.data.volume_cache_dataset import VolumeCacheDataset
from vol3d.errors import ConfigError
from vol3d.transforms.augment_prepare_batch import AugmentPrepareBatch
from vol3d.transforms.augment_settings import IntensitySettings, SpatialSettings
from vol3d.transforms.balanced_patches import BalancedPatchSampler
from vol3d.transforms.batch_augment import BatchAugment
from vol3d.transforms.foreground_indexd import ForegroundIndexd

STILL = SpatialSettings(rotation_probability=0, scale_probability=0, flip_probability=(0, 0, 0))
QUIET = IntensitySettings(
    blur_probability=0,
    low_resolution_probability=0,
    gaussian_noise_probability=0,
    brightness_probability=0,
    contrast_probability=0,
    gamma_inverted_probability=0,
    gamma_probability=0,
)


def item() -> dict[str, object]:
    label = torch.zeros(1, 20, 18, 16)
    label[0, 15:17, 3, 4] = 2
    return {"image": torch.rand(1, 20, 18, 16), "label": MetaTensor(label), "case": "a"}


def test_each_class_is_listed_by_its_voxels() -> None:
    found = ForegroundIndexd("label")(item())["foreground"]
    assert list(found) == [2]
    assert np.stack(np.unravel_index(found[2], (20, 18, 16)), axis=1).tolist() == [[15, 3, 4], [16, 3, 4]]


def test_the_list_survives_the_cache(tmp_path: object) -> None:
    dataset = VolumeCacheDataset([item()], [ForegroundIndexd("label")], cache_dir=str(tmp_path))
    for _ in range(2):
        np.testing.assert_array_equal(dataset[0]["foreground"][2], ForegroundIndexd("label")(item())["foreground"][2])


def prepare(sampler: BalancedPatchSampler | None) -> AugmentPrepareBatch:
    return AugmentPrepareBatch(BatchAugment((6, 6, 6), STILL, QUIET), epoch=1, sampler=sampler)


def test_patches_are_drawn_around_the_organ() -> None:
    listed = ForegroundIndexd("label")(item())
    batch = {key: [listed[key]] * 2 for key in listed}
    _, labels = prepare(BalancedPatchSampler((6, 6, 6), {2: 1.0}))(batch)
    assert labels is not None
    assert [int((patch == 2).sum()) for patch in labels] == [2, 2]


def test_two_patches_of_one_case_lie_at_different_places() -> None:
    listed = ForegroundIndexd("label")(item())
    batch = {key: [listed[key]] * 4 for key in listed}
    images, _ = prepare(BalancedPatchSampler((6, 6, 6), {0: 1.0}))(batch)
    assert len({float(image.sum()) for image in images}) == 4


def test_a_batch_without_the_list_is_refused() -> None:
    batch = {key: [value] for key, value in item().items()}
    with pytest.raises(ConfigError, match="batch must hold 'foreground' to sample patches, got"):
        prepare(BalancedPatchSampler((6, 6, 6), {2: 1.0}))(batch)
