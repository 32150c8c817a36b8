"""The page of means and intervals."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from vol3d.errors import UsageError
from vol3d.metrics.baseline import BaselineDice
from vol3d.metrics.score_summary import format_summary, summarize_scores

NAMES = ["liver", "spleen"]


def row(case: str, name: str, dice: float, hd95_mm: float = 2.0) -> dict[str, Any]:
    return {"case": case, "class": name, "dice": dice, "hd95_mm": hd95_mm, "volume_ml_label": 10.0}


ROWS = [row("a", "liver", 0.9), row("a", "spleen", 0.8, math.inf), row("b", "liver", 0.8), row("b", "spleen", math.nan)]


def test_mean_dice_is_over_cases_then_over_classes() -> None:
    assert summarize_scores(ROWS, NAMES)["mean_dice"] == pytest.approx((0.85 + 0.8) / 2)


def test_classes_count_the_cases_that_entered_and_that_were_left_out() -> None:
    classes = summarize_scores(ROWS, NAMES)["classes"]
    assert classes["liver"]["dice"]["mean"] == pytest.approx(0.85)
    assert (classes["spleen"]["dice"]["num_cases"], classes["spleen"]["dice"]["num_left_out"]) == (1, 1)
    assert classes["spleen"]["hd95_mm"]["num_left_out"] == 1
    assert classes["liver"]["volume_ml_label"]["mean"] == 10


def test_the_foreground_has_no_mean_of_volumes() -> None:
    assert list(summarize_scores(ROWS, NAMES)["foreground"]) == ["dice", "hd95_mm"]


def test_a_class_that_a_case_was_not_scored_for_is_left_out() -> None:
    summary = summarize_scores(ROWS[:3], NAMES)
    assert summary["num_cases"] == 2
    assert summary["classes"]["spleen"]["dice"]["num_left_out"] == 1


def test_a_class_that_no_case_has_is_null_and_does_not_spoil_the_mean() -> None:
    summary = summarize_scores(ROWS, [*NAMES, "kidney"])
    assert summary["classes"]["kidney"]["dice"]["mean"] is None
    assert summary["mean_dice"] == pytest.approx(0.825)


def test_a_summary_is_strict_json() -> None:
    summary = summarize_scores(ROWS, [*NAMES, "kidney"])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_baseline_adds_the_paired_difference() -> None:
    baseline = BaselineDice("nnunet", {"a": {"liver": 0.8, "spleen": 0.8}, "b": {"liver": 0.8, "spleen": 0.7}})
    difference = summarize_scores(ROWS, NAMES, baseline)["baseline_difference"]
    assert difference["baseline"] == "nnunet"
    assert difference["mean"] == pytest.approx((0.05 + 0.0) / 2)


def test_text_has_a_line_per_class_and_one_for_the_baseline() -> None:
    baseline = BaselineDice("nnunet", {case: dict.fromkeys(NAMES, 0.8) for case in "ab"})
    lines = format_summary(summarize_scores(ROWS, [*NAMES, "kidney"], baseline)).splitlines()
    assert lines[0] == "2 cases, mean and 95% interval"
    assert lines[1].split() == ["dice", "hd95_mm"]
    assert [line.split()[0] for line in lines[2:6]] == ["liver", "spleen", "kidney", "foreground"]
    assert lines[2].split()[1] == "0.8500"
    assert lines[4].split() == ["kidney", "-", "-"]
    assert lines[6].startswith("Dice minus nnunet, paired over 2 cases: +0.0250 [+0.0000, +0.0500]")


def test_no_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="rows must hold at least one scored case, got none"):
        summarize_scores([], NAMES)
