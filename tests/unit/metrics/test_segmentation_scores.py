"""One row of plain values per class and case."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vol3d.errors import DataError, GeometryError, UsageError
from vol3d.metrics.segmentation_scores import score_labelmap
from vol3d.metrics.surface import measure_surface_distances

NAMES = {1: "anterior", 2: "posterior"}


def two_boxes(shift: int = 0) -> np.ndarray:
    labelmap = np.zeros((20, 16, 12), dtype=np.uint8)
    labelmap[3 + shift : 9 + shift, 4:10, 3:9] = 1
    labelmap[9 + shift : 15 + shift, 4:10, 3:9] = 2
    return labelmap


def test_scores_of_moved_boxes_equal_the_hand_computed_values() -> None:
    rows = score_labelmap(two_boxes(1), two_boxes(), NAMES, (2.0, 1.0, 1.0), nsd_tolerance_mm=2.0)
    assert [row["class"] for row in rows] == ["anterior", "posterior"]
    for row in rows:
        assert row["dice"] == pytest.approx(5 / 6)
        assert row["hd95_mm"] == pytest.approx(2.0)
        assert row["nsd_2mm"] == 1
        assert row["volume_ml_label"] == row["volume_ml_pred"] == pytest.approx(216 * 2 / 1000)
        assert row["volume_error_ml"] == row["volume_error_percent"] == 0


def test_cropping_to_a_class_changes_no_score() -> None:
    pred, label = two_boxes(2), two_boxes()
    rows = score_labelmap(pred, label, NAMES, (0.5, 1.0, 3.0))
    for value, row in zip(NAMES, rows, strict=True):
        whole = measure_surface_distances(pred == value, label == value, (0.5, 1.0, 3.0))
        assert row["hd95_mm"] == whole.hausdorff_mm()
        assert row["nsd_1mm"] == whole.normalized_surface_dice(1.0)


def test_values_are_plain_python() -> None:
    for row in score_labelmap(two_boxes(1), two_boxes(), NAMES, (1.0, 1.0, 1.0)):
        assert {type(value) for value in row.values()} == {str, float}


def test_an_absent_class_is_undefined_and_a_missed_one_is_zero_and_infinitely_far() -> None:
    label = two_boxes()
    label[label == 2] = 0
    pred = np.zeros_like(label)
    missed, absent = score_labelmap(pred, label, NAMES, (1.0, 1.0, 1.0))
    assert (missed["dice"], missed["nsd_1mm"], missed["hd95_mm"]) == (0, 0, math.inf)
    assert missed["volume_error_percent"] == -100
    assert absent["volume_ml_label"] == absent["volume_ml_pred"] == 0
    assert all(math.isnan(absent[score]) for score in ("dice", "nsd_1mm", "hd95_mm", "volume_error_percent"))


def test_a_bool_mask_is_a_labelmap_of_one_class() -> None:
    mask = two_boxes() > 0
    assert score_labelmap(mask, mask, {1: "nodule"}, (1.0, 1.0, 1.0))[0]["dice"] == 1


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint16])
def test_every_integer_type_gives_the_same_scores(dtype: type) -> None:
    spacing = (1.0, 1.0, 1.0)
    expected = score_labelmap(two_boxes(1), two_boxes(), NAMES, spacing)
    assert score_labelmap(two_boxes(1).astype(dtype), two_boxes(), NAMES, spacing) == expected


@pytest.mark.parametrize("value", [3, 70_000, -1])
def test_a_label_without_a_name_is_refused_with_its_value(value: int) -> None:
    pred = two_boxes().astype(np.int32)
    pred[0, 0, 0] = value
    with pytest.raises(DataError, match=rf"pred must hold only 0 and the named labels \[1, 2\], got \[{value}\]"):
        score_labelmap(pred, two_boxes(), NAMES, (1.0, 1.0, 1.0))


def test_a_gap_between_the_named_labels_is_no_name() -> None:
    label = two_boxes()
    with pytest.raises(DataError, match=r"label must hold only 0 and the named labels \[1, 3\], got \[2\]"):
        score_labelmap(np.zeros_like(label), label, {1: "a", 3: "c"}, (1.0, 1.0, 1.0))


def test_probabilities_are_refused() -> None:
    with pytest.raises(DataError, match="pred must be an integer labelmap, got float32"):
        score_labelmap(two_boxes().astype(np.float32), two_boxes(), NAMES, (1.0, 1.0, 1.0))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"got \(20, 16, 11\) against \(20, 16, 12\)"):
        score_labelmap(two_boxes()[..., 1:], two_boxes(), NAMES, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("names", [{}, {0: "background", 1: "liver"}])
def test_names_without_a_foreground_or_with_background_are_refused(names: dict[int, str]) -> None:
    with pytest.raises(UsageError, match="class_names must name values of 1 and up"):
        score_labelmap(two_boxes(), two_boxes(), names, (1.0, 1.0, 1.0))
