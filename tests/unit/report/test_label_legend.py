"""Colours and volumes of labels."""

from __future__ import annotations

import numpy as np

from vol3d.geometry import VolumeGeometry
from vol3d.report.label_legend import LabelLegend

SHAPE = (10, 10, 10)
GRID = VolumeGeometry(SHAPE, np.diag([-1.0, 2.0, 5.0, 1.0]))


def labels(**counts: int) -> np.ndarray:
    flat = np.zeros(1000, dtype=np.int16)
    start = 0
    for name, count in counts.items():
        flat[start : start + count] = int(name[1:])
        start += count
    return flat.reshape(SHAPE)


def test_volumes_are_in_ml_and_an_absent_class_has_none() -> None:
    legend = LabelLegend(labels(v1=100, v2=3), GRID, {0: "background", 1: "liver", 2: "cyst", 3: "spleen"})
    assert legend.texts() == ["liver  1 ml", "cyst  0.03 ml", "spleen  0 ml"]


def test_a_value_without_a_name_follows_the_named_ones() -> None:
    legend = LabelLegend(labels(v9=50, v1=100), GRID, {1: "liver"})
    assert legend.texts() == ["liver  1 ml", "label 9  0.5 ml"]


def test_a_class_keeps_its_color_whatever_the_case_holds() -> None:
    names = {1: "liver", 2: "spleen"}
    both, one = LabelLegend(labels(v1=10, v2=10), GRID, names), LabelLegend(labels(v2=10), GRID, names)
    assert both.color(2) == one.color(2) != one.color(1)


def test_labels_of_the_same_color_differ_in_line_style() -> None:
    legend = LabelLegend(labels(v1=1), GRID, {value: str(value) for value in range(1, 22)})
    looks = {(legend.color(value), legend.line_style(value)) for value in range(1, 22)}
    assert len(looks) == 21


def test_a_bool_mask_is_label_1() -> None:
    legend = LabelLegend(labels(v1=100) > 0, GRID, {1: "nodule"})
    assert legend.texts() == ["nodule  1 ml"]
    assert not legend.is_empty


def test_no_label_is_empty() -> None:
    assert LabelLegend(labels(), GRID, {1: "nodule"}).is_empty


def test_large_volumes_are_whole_millilitres() -> None:
    grid = VolumeGeometry(SHAPE, np.diag([10.0, 10.0, 12.34, 1.0]))
    assert LabelLegend(labels(v1=1000), grid, {1: "liver"}).texts() == ["liver  1234 ml"]


def test_long_names_take_more_lines() -> None:
    short = LabelLegend(labels(v1=1), GRID, dict.fromkeys(range(1, 6), "a"))
    long = LabelLegend(labels(v1=1), GRID, dict.fromkeys(range(1, 6), "inferior vena cava and its tributaries"))
    assert short.num_rows == 1
    assert long.num_rows == 3
