from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from vol3d.data.contoured import contoured_names, read_partial_split
from vol3d.data.phantoms import write_phantom_dataset
from vol3d.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND = "phantom_001", "phantom_002"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_phantom_dataset(tmp_path, 1, 1)


def change(dataset: Path, **entries: Any) -> None:
    path = dataset / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **entries}))


def test_items_name_the_label_values_that_were_contoured(dataset: Path) -> None:
    change(dataset, contoured={FIRST: ["posterior"], SECOND: []})
    assert [item["labeled"] for item in read_partial_split(dataset, "training")] == [[2]]
    assert [item["labeled"] for item in read_partial_split(dataset, "validation")] == [[]]


def test_without_the_entry_every_label_was_contoured(dataset: Path) -> None:
    assert [item["labeled"] for item in read_partial_split(dataset, "training")] == [[1, 2]]


def test_classes_to_score_have_the_names_of_the_bundle(dataset: Path) -> None:
    change(dataset, contoured={FIRST: ["anterior", "posterior"], SECOND: ["anterior"]})
    names = {"1": "front", "2": "back", "3": "never in this data set"}
    assert contoured_names(dataset, "training", names) == {FIRST: ["front", "back"]}
    assert contoured_names(dataset, "validation", names) == {SECOND: ["front"]}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"contoured": {SECOND: []}}, f"contoured must list the organs of every case, got none for {FIRST}"),
        ({"contoured": ["anterior"]}, f"contoured must list the organs of every case, got none for {FIRST}"),
        ({"contoured": {FIRST: ["liver"]}}, f"must use the names of labels, got liver for {FIRST}"),
        ({"labels": None}, "labels must name label values, got None"),
        ({"labels": {"anterior": 1}}, "labels must name label values, got {'anterior': 1}"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_a_list_that_contradicts_itself_is_refused(dataset: Path, entries: dict[str, Any], message: str) -> None:
    change(dataset, **entries)
    with pytest.raises(DataError, match=message):
        read_partial_split(dataset, "training")
