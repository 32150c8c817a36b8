"""Reading another method's Dice and comparing with it case by case."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from vol3d.errors import DataError
from vol3d.metrics.baseline import BaselineDice

if TYPE_CHECKING:
    from pathlib import Path

DICE = {"case_1": {"anterior": 0.90, "posterior": 0.88}, "case_2": {"anterior": 0.80, "posterior": None}}


def rows(case: str, anterior: float, posterior: float) -> list[dict[str, object]]:
    return [
        {"case": case, "class": "anterior", "dice": anterior},
        {"case": case, "class": "posterior", "dice": posterior},
    ]


def test_difference_is_of_each_cases_mean_over_the_classes_that_both_define() -> None:
    difference = BaselineDice("nnunet", DICE).difference(rows("case_1", 0.92, 0.90) + rows("case_2", 0.84, 0.10))
    assert difference.mean == pytest.approx((0.02 + 0.04) / 2)
    assert difference.num_cases == 2


def test_a_class_that_we_leave_undefined_does_not_count() -> None:
    difference = BaselineDice("nnunet", DICE).difference(rows("case_1", 0.92, math.nan))
    assert difference.mean == pytest.approx(0.02)


def test_a_missing_case_is_named() -> None:
    with pytest.raises(DataError, match="got none named case_7"):
        BaselineDice("nnunet", DICE).difference(rows("case_7", 0.9, 0.9))


def test_a_missing_class_is_named() -> None:
    with pytest.raises(DataError, match="every class of case case_1, got none named tail"):
        BaselineDice("nnunet", DICE).check_has("case_1", ["anterior", "tail"])


def test_a_file_is_read_and_lends_its_name(tmp_path: Path) -> None:
    path = tmp_path / "nnunet_percase.json"
    path.write_text(json.dumps(DICE))
    assert BaselineDice.read(path) == BaselineDice("nnunet_percase", DICE)


@pytest.mark.parametrize("text", ["", "{", "\x00\x01"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"baseline must be a readable JSON file, got .*broken\.json"):
        BaselineDice.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json \(FileNotFoundError\)"):
        BaselineDice.read(tmp_path / "none.json")


@pytest.mark.parametrize("value", [90.1, -0.1, "0.9", [0.9]])
def test_a_value_that_is_no_dice_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"Dice from 0 to 1, got .* for case_1 liver"):
        BaselineDice("other", {"case_1": {"liver": value}})  # type: ignore[dict-item]


@pytest.mark.parametrize("dice", [[], {"case_1": 0.9}])
def test_another_form_is_refused(dice: object) -> None:
    with pytest.raises(DataError, match="got another form"):
        BaselineDice("other", dice)  # type: ignore[arg-type]
