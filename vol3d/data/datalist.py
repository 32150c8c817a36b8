"""Lists of cases for bundle configs: dictionaries with MONAI's keys ``image``, ``label`` and the case name ``case``.

A data set is a folder with a ``dataset.json`` in one of two forms:

* names: ``{"training": ["case_1", ...], "validation": [...]}``, files ``images/case_1.nii.gz`` and
  ``labels/case_1.nii.gz`` (or another volume suffix);
* Medical Segmentation Decathlon: ``{"training": [{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}],
  "test": ["./imagesTs/y.nii.gz"]}``.

In a config: ``datalist: {_target_: vol3d.data.datalist.read_split, dataset_dir: "@dataset_dir", split: training}``.
Splits of items that are in memory (``hold_out``, ``fold``) depend on the names and the seed only: not on the order of
the items, the platform or a library's random generator.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vol3d.data.cases import find_cases
from vol3d.data.volume_suffix import VOLUME_SUFFIXES, volume_stem, volume_suffix
from vol3d.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Item = dict[str, str]

DATASET_FILE = "dataset.json"
SPLITS = ("training", "validation", "test")


def find_images(dataset_dir: str | Path, images: str = "images") -> list[Item]:
    """Return every scan below a folder, for inference.

    Args:
        dataset_dir: A data set, a folder of cases or a single scan; DICOM folders count as scans.
        images: Subfolder that is searched instead, where there is one: labels beside it are no scans.

    Returns:
        ``{"image": path, "case": name}`` for each case.

    Raises:
        UsageError: If nothing is there.
        DataError: If there is no case, or two have one name.
    """
    inner = Path(dataset_dir) / images
    cases = find_cases([inner if inner.is_dir() else dataset_dir])
    return [{"image": str(case.path), "case": case.name} for case in cases]


def read_split(dataset_dir: str | Path, split: str) -> list[Item]:
    """Return the cases of one split of a data set, checked to be there and in no other split.

    Args:
        dataset_dir: Folder of the data set.
        split: ``training``, ``validation`` or ``test``.

    Returns:
        ``{"image": path, "label": path, "case": name}`` in the order of the file; no ``label`` for an entry that is
        a path only (test images of the Decathlon).

    Raises:
        UsageError: If the list or the split is not there.
        DataError: If the list cannot be read, a file is missing or outside the folder, or a case is listed twice.
    """
    folder = Path(dataset_dir)
    content = read_dataset_file(folder)
    present = [name for name in SPLITS if isinstance(content.get(name), list)]
    if split not in present:
        raise UsageError(f"split must be one of {', '.join(present) or 'none'} in {DATASET_FILE}, got {split!r}")
    _check_disjoint({name: [_case_name(entry) for entry in content[name]] for name in present})
    return [_item(folder, entry) for entry in content[split]]


def hold_out(
    items: Sequence[Item], fraction: float, seed: int = 0, group: str = "case"
) -> tuple[list[Item], list[Item]]:
    """Split items in two; items of one group stay together.

    Args:
        items: Items of ``read_split`` or the like.
        fraction: Part of the groups that is held out, between 0 and 1; at least one group on either side.
        seed: Another seed gives another split.
        group: Key that tells what must stay together, for example the patient.

    Returns:
        The remaining items and the held-out items, each in their given order.

    Raises:
        UsageError: If the fraction is not between 0 and 1, or there are fewer than two groups.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"fraction must be between 0 and 1, got {fraction}; 0.2 holds out every fifth case")
    order = _shuffled_groups(items, seed, group, at_least=2)
    held = set(order[: min(max(round(fraction * len(order)), 1), len(order) - 1)])
    return _parted(items, held, group)


def fold(
    items: Sequence[Item], index: int, num_folds: int, seed: int = 0, group: str = "case"
) -> tuple[list[Item], list[Item]]:
    """Return training and validation items of one fold of a cross-validation.

    Args:
        items: Items of ``read_split`` or the like.
        index: Which fold, from 0.
        num_folds: Number of folds; their sizes differ by one group at most.
        seed: Another seed gives other folds.
        group: Key that tells what must stay together, for example the patient.

    Raises:
        UsageError: If the index is not one of the folds, or there are more folds than groups.
    """
    if num_folds < 2 or not 0 <= index < num_folds:
        raise UsageError(f"index must be from 0 to {num_folds - 1} of at least 2 folds, got {index} of {num_folds}")
    order = _shuffled_groups(items, seed, group, at_least=num_folds)
    return _parted(items, set(order[index::num_folds]), group)


def read_dataset_file(dataset_dir: str | Path) -> dict[str, Any]:
    """Return the content of a data set's ``dataset.json``.

    Raises:
        UsageError: If there is none.
        DataError: If it cannot be read or is no JSON object.
    """
    path = Path(dataset_dir) / DATASET_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"dataset_dir must hold {path.name}, got {path.parent}; give the folder of a data set"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: list must be JSON, got an error ({error}); repair it") from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path.name}: list must be a JSON object, got {type(content).__name__}; see the data set's form"
        )
    return content


def _case_name(entry: Any) -> str:
    image = entry.get("image") if isinstance(entry, dict) else entry
    if not isinstance(image, str) or not image:
        raise DataError(f"{DATASET_FILE}: entry must be a case name or have an image, got {entry!r}; repair the list")
    return volume_stem(image)


def _check_disjoint(splits: dict[str, list[str]]) -> None:
    first: dict[str, str] = {}
    for split, cases in splits.items():
        for case in cases:
            if case in first:
                raise DataError(
                    f"{DATASET_FILE}: case must be listed once, got {case!r} in {first[case]} and {split}; "
                    "remove one of them"
                )
            first[case] = split


def _item(folder: Path, entry: Any) -> Item:
    case = _case_name(entry)
    if isinstance(entry, dict):
        item = {key: _inside(folder, entry[key]) for key in ("image", "label") if key in entry}
    elif volume_suffix(entry) is not None:
        item = {"image": _inside(folder, entry)}
    else:
        item = {"image": _by_name(folder, "images", case), "label": _by_name(folder, "labels", case)}
    return {**item, "case": case}


def _inside(folder: Path, value: Any) -> str:
    path = folder / str(value)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{DATASET_FILE}: files must lie in the data set's folder, got {value!r}; move them there")
    if not path.exists():
        raise DataError(
            f"{DATASET_FILE}: file must exist, got {value!r}, which is missing; copy it or remove the entry"
        )
    return str(path)


def _by_name(folder: Path, kind: str, case: str) -> str:
    found = [suffix for suffix in VOLUME_SUFFIXES if (folder / kind / f"{case}{suffix}").is_file()]
    if len(found) != 1:
        raise DataError(
            f"{DATASET_FILE}: case {case!r} must have one volume in {kind}, got {len(found)}; "
            "add the missing file, remove the double, or remove the case from the list"
        )
    return _inside(folder, f"{kind}/{case}{found[0]}")


def _shuffled_groups(items: Sequence[Item], seed: int, group: str, at_least: int) -> list[str]:
    missing = next((item for item in items if group not in item), None)
    if missing is not None:
        raise UsageError(f"group must be a key of every item, got {group!r}; the keys are {sorted(missing)}")
    groups = {item[group] for item in items}
    if len(groups) < at_least:
        raise UsageError(f"items must have at least {at_least} groups by {group!r}, got {len(groups)}; add cases")
    return sorted(groups, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def _parted(items: Sequence[Item], held: set[str], group: str) -> tuple[list[Item], list[Item]]:
    return [item for item in items if item[group] not in held], [item for item in items if item[group] in held]
