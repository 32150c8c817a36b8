"""Which organs the reference of each case holds, for data sets where not every organ was contoured in every case.

The ``dataset.json`` of such a data set has, beside the lists of ``datalist``, ``"labels": {"1": "Brainstem", ...}`` and
``"contoured": {"case_1": ["Brainstem", ...], ...}``. Without ``contoured``, all of ``labels`` are in every case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vol3d.data.datalist import DATASET_FILE, read_dataset_file, read_split
from vol3d.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LABELED_KEY = "labeled"
"""Key of an item under which its contoured label values stand."""


def read_partial_split(dataset_dir: str | Path, split: str) -> list[dict[str, Any]]:
    """Return the items of ``read_split``, each with the label values that its reference holds.

    Args:
        dataset_dir: Folder of the data set.
        split: ``training``, ``validation`` or ``test``.

    Returns:
        ``{"image": path, "label": path, "case": name, "labeled": [label values]}`` in the order of the file.

    Raises:
        UsageError: If the list or the split is not there.
        DataError: If the list cannot be read or contradicts itself.
    """
    items = read_split(dataset_dir, split)
    content = read_dataset_file(dataset_dir)
    return [{**item, LABELED_KEY: _labeled_values(content, item["case"])} for item in items]


def contoured_names(dataset_dir: str | Path, split: str, class_names: Mapping[int | str, str]) -> dict[str, list[str]]:
    """Return the classes to score in each case of a split, for the ``include`` of ``ScoreTableHandler``.

    Args:
        dataset_dir: Folder of the data set.
        split: ``training``, ``validation`` or ``test``.
        class_names: The bundle's name of each label value; the data set may call them otherwise.

    Raises:
        UsageError: If the list or the split is not there.
        DataError: If the list cannot be read or contradicts itself.
    """
    names = {int(value): name for value, name in class_names.items()}
    return {
        item["case"]: [names[value] for value in item[LABELED_KEY] if value in names]
        for item in read_partial_split(dataset_dir, split)
    }


def _labeled_values(content: Mapping[str, Any], case: str) -> list[int]:
    """Return the label values above 0 that the reference of a case holds, ascending."""
    names = content.get("labels")
    if not isinstance(names, dict) or not all(str(value).isdecimal() for value in names):
        raise DataError(f"{DATASET_FILE}: labels must name label values, got {names!r}; list them as {{value: name}}")
    values = {str(name): int(value) for value, name in names.items() if int(value) > 0}
    contoured = content.get("contoured")
    if contoured is None:
        return sorted(values.values())
    organs = contoured.get(case) if isinstance(contoured, dict) else None
    if not isinstance(organs, list):
        raise DataError(f"{DATASET_FILE}: contoured must list the organs of every case, got none for {case}; add them")
    unknown = sorted({str(organ) for organ in organs} - set(values))
    if unknown:
        raise DataError(
            f"{DATASET_FILE}: contoured must use the names of labels, got {', '.join(unknown)} for {case}; "
            f"the names are {', '.join(values)}"
        )
    return sorted(values[str(organ)] for organ in organs)
