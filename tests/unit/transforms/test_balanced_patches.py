from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms.utils import map_classes_to_indices

from vol3d.errors import ConfigError, GeometryError
from vol3d.transforms.augment_settings import SpatialSettings
from vol3d.transforms.balanced_patches import BalancedPatchSampler, ForegroundIndex
from vol3d.transforms.batch_augment import BatchAugment


def label() -> np.ndarray:
    volume = np.zeros((20, 15, 11), np.uint8)
    volume[2:5, 3:6, 1:4] = 1
    volume[18, 13, 10] = 2
    return volume


def test_the_index_holds_the_voxels_that_monai_finds() -> None:
    index = ForegroundIndex.from_label(label())
    monai = map_classes_to_indices(torch.from_numpy(label()[None]), num_classes=3)
    assert sorted(index.voxels) == [1, 2]
    for number in (1, 2):
        np.testing.assert_array_equal(index.voxels[number], np.asarray(monai[number]))


def test_the_index_is_bounded_and_spread_over_the_class() -> None:
    index = ForegroundIndex.from_label(np.ones((1, 30, 30, 30), np.int16), max_voxels=100)
    assert len(np.unique(index.voxels[1])) == 100
    assert index.voxels[1][0] == 0
    assert index.voxels[1][-1] == 30**3 - 1


def test_patches_hold_the_class_they_were_drawn_for_and_stay_inside() -> None:
    sampler = BalancedPatchSampler((6, 5, 4), {1: 0.5, 2: 0.5}, seed=1)
    index = ForegroundIndex.from_label(label())
    found = []
    for center in sampler.centers(index, "a", 1, range(200)):
        start = [c - roi // 2 for c, roi in zip(center, (6, 5, 4), strict=True)]
        assert all(0 <= s <= n - roi for s, n, roi in zip(start, index.shape, (6, 5, 4), strict=True))
        patch = label()[tuple(slice(s, s + roi) for s, roi in zip(start, (6, 5, 4), strict=True))]
        assert patch.any()
        found.append(2 in patch)
    assert abs(np.mean(found) - 0.5) < 0.1


def test_class_zero_is_drawn_anywhere() -> None:
    sampler = BalancedPatchSampler((1, 1, 1), {"0": 1.0})  # type: ignore[dict-item]
    centers = sampler.centers(ForegroundIndex.from_label(label()), "a", 1, range(2000))
    np.testing.assert_array_equal(centers.min(axis=0), [0, 0, 0])
    np.testing.assert_array_equal(centers.max(axis=0), [19, 14, 10])


def test_weights_of_missing_classes_go_to_the_others() -> None:
    sampler = BalancedPatchSampler((1, 1, 1), {0: 0.0, 2: 0.2, 5: 0.8})
    centers = sampler.centers(ForegroundIndex.from_label(label()), "a", 1, range(20))
    assert np.unique(centers, axis=0).tolist() == [[18, 13, 10]]


def test_an_empty_label_is_drawn_anywhere() -> None:
    index = ForegroundIndex.from_label(np.zeros((9, 9, 9)))
    centers = BalancedPatchSampler((3, 3, 3), {0: 0.0, 1: 1.0}).centers(index, "a", 1, range(50))
    assert len(np.unique(centers, axis=0)) > 20


def test_centers_depend_on_case_epoch_draw_and_seed_only() -> None:
    index = ForegroundIndex.from_label(label())
    sampler = BalancedPatchSampler((3, 3, 3), {0: 1.0, 1: 1.0}, seed=7)
    whole = sampler.centers(index, "a", 1, range(6))
    np.testing.assert_array_equal(sampler.centers(index, "a", 1, [4, 2]), whole[[4, 2]])
    for other in (
        sampler.centers(index, "b", 1, range(6)),
        sampler.centers(index, "a", 2, range(6)),
        BalancedPatchSampler((3, 3, 3), {0: 1.0, 1: 1.0}, seed=8).centers(index, "a", 1, range(6)),
    ):
        assert not np.array_equal(other, whole)


def test_a_patch_larger_than_the_volume_is_centered() -> None:
    index = ForegroundIndex.from_label(label())
    (center,) = BalancedPatchSampler((30, 4, 31), {2: 1.0}).centers(index, "a", 1, [0])
    volume = torch.from_numpy(label()[None, None])
    off = SpatialSettings(rotation_probability=0, scale_probability=0, flip_probability=(0, 0, 0))
    batch = {"image": volume, "label": volume, "case": ["a"], "center_vox": [center]}
    patch = BatchAugment((30, 4, 31), off)(batch, 1)["label"]
    assert patch[0, 0, 5:25, :, 10:21].sum() == patch.sum() == 2


@pytest.mark.parametrize("weights", [{}, {1: 0.0}, {1: -1.0, 2: 2.0}, {1: float("nan")}])
def test_weights_that_choose_nothing_are_refused(weights: dict[int, float]) -> None:
    with pytest.raises(ConfigError, match="class_weights must be at least 0 with a positive sum"):
        BalancedPatchSampler((3, 3, 3), weights)


def test_hostile_indices_and_sizes_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"voxels of class 1 must lie in the shape \(2, 2, 2\), got indices 0 to 8"):
        ForegroundIndex((2, 2, 2), {1: np.array([0, 8])})
    with pytest.raises(GeometryError, match=r"label must be H W D or 1 H W D, got shape \(2, 2\)"):
        ForegroundIndex.from_label(np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="max_voxels must be positive, got 0"):
        ForegroundIndex.from_label(label(), max_voxels=0)
    with pytest.raises(ConfigError, match=r"roi_size must be 3 positive numbers, got \(3, 0, 3\)"):
        BalancedPatchSampler((3, 0, 3), {1: 1.0})
