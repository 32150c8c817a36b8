"""Dice and volume errors from voxel counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vol3d.errors import GeometryError, UsageError
from vol3d.metrics.overlap import Overlap, count_overlap


def test_dice_of_two_boxes_equals_the_hand_computed_value() -> None:
    pred, label = np.zeros((2, 6, 6, 6), dtype=bool)
    pred[1:4, 1:4, 1:4] = True  # 27 voxels
    label[2:4, 1:4, 1:5] = True  # 24 voxels, 18 of them shared
    overlap = count_overlap(pred, label)
    assert overlap == Overlap(num_pred=27, num_label=24, num_both=18)
    assert overlap.dice == 36 / 51
    assert overlap.volume_error_percent == pytest.approx(12.5)


def test_dice_is_undefined_if_both_masks_are_empty_and_zero_if_one_is() -> None:
    empty, full = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    assert math.isnan(count_overlap(empty, empty).dice)
    assert count_overlap(empty, full).dice == 0
    assert count_overlap(full, empty).dice == 0


def test_volume_error_is_undefined_without_a_reference_and_minus_100_percent_without_a_prediction() -> None:
    assert math.isnan(Overlap(num_pred=5, num_label=0, num_both=0).volume_error_percent)
    assert Overlap(num_pred=0, num_label=5, num_both=0).volume_error_percent == -100


def test_a_labelmap_is_refused_as_a_mask() -> None:
    labelmap = np.full((2, 2, 2), 2, dtype=np.uint8)
    with pytest.raises(UsageError, match=r"pred must be a bool mask, got uint8"):
        count_overlap(labelmap, labelmap > 0)


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"got \(2, 2, 2\) against \(2, 2, 3\)"):
        count_overlap(np.zeros((2, 2, 2), dtype=bool), np.zeros((2, 2, 3), dtype=bool))
