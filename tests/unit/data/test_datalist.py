from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from vol3d.data.datalist import find_images, fold, hold_out, read_split
from vol3d.errors import DataError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def dataset(folder: Path, content: Any, *files: str) -> Path:
    for name in files:
        touch(folder / name)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def named(folder: Path) -> Path:
    files = [f"{kind}/{name}.nii.gz" for kind in ("images", "labels") for name in ("a", "b", "c")]
    return dataset(folder, {"training": ["b", "a"], "validation": ["c"], "labels": {"0": "background"}}, *files)


def items(count: int, group_size: int = 1) -> list[dict[str, str]]:
    return [{"image": f"{i}.nii", "case": f"case_{i}", "patient": f"p{i // group_size}"} for i in range(count)]


def test_a_split_of_names_gives_images_labels_and_cases_in_the_order_of_the_file(tmp_path: Path) -> None:
    folder = named(tmp_path)
    assert read_split(folder, "training") == [
        {"image": str(folder / f"images/{n}.nii.gz"), "label": str(folder / f"labels/{n}.nii.gz"), "case": n}
        for n in "ba"
    ]
    assert [item["case"] for item in read_split(str(folder), "validation")] == ["c"]


def test_the_decathlon_form_is_read(tmp_path: Path) -> None:
    content = {
        "training": [{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}],
        "test": ["./imagesTs/y.nii.gz"],
        "numTraining": 1,
    }
    dataset(tmp_path, content, "imagesTr/x.nii.gz", "labelsTr/x.nii.gz", "imagesTs/y.nii.gz")
    (item,) = read_split(tmp_path, "training")
    assert item["case"] == "x"
    assert item["label"].endswith("labelsTr/x.nii.gz")
    (item,) = read_split(tmp_path, "test")
    assert set(item) == {"image", "case"}


def test_names_may_have_any_volume_suffix_but_only_one_file(tmp_path: Path) -> None:
    folder = dataset(tmp_path, {"training": ["a"]}, "images/a.mha", "labels/a.nii.gz")
    assert read_split(folder, "training")[0]["image"].endswith("a.mha")
    touch(folder / "images/a.nrrd")
    with pytest.raises(DataError, match="case 'a' must have one volume in images, got 2"):
        read_split(folder, "training")


def test_an_unknown_split_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"split must be one of training, validation in dataset\.json, got 'train'"):
        read_split(named(tmp_path), "train")


def test_a_missing_or_broken_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"dataset_dir must hold dataset\.json"):
        read_split(tmp_path, "training")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json: list must be JSON, got an error"):
        read_split(tmp_path, "training")
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match="must be a JSON object, got list"):
        read_split(tmp_path, "training")


def test_a_missing_label_is_refused(tmp_path: Path) -> None:
    folder = named(tmp_path)
    (folder / "labels/a.nii.gz").unlink()
    with pytest.raises(DataError, match="case 'a' must have one volume in labels, got 0"):
        read_split(folder, "training")


@pytest.mark.parametrize("content", [{"training": ["a", "b"], "validation": ["b"]}, {"training": ["a", "a"]}])
def test_a_case_that_is_listed_twice_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"case must be listed once, got '[ab]' in training and"):
        read_split(dataset(tmp_path, content), "training")


@pytest.mark.parametrize("entry", [7, {"label": "x"}, "", None, ["a"]])
def test_an_entry_of_another_form_is_refused(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(DataError, match="entry must be a case name or have an image"):
        read_split(dataset(tmp_path, {"training": [entry]}), "training")


@pytest.mark.parametrize("entry", [{"image": "../secret.nii.gz"}, "../secret.nii.gz", {"image": "/etc/hostname"}])
def test_files_outside_the_data_set_are_refused(tmp_path: Path, entry: Any) -> None:
    touch(tmp_path / "secret.nii.gz")
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match="files must lie in the data set's folder, got"):
        read_split(dataset(tmp_path / "set", {"training": [entry]}), "training")


def test_a_missing_decathlon_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"file must exist, got 'imagesTr/x\.nii\.gz'"):
        read_split(dataset(tmp_path, {"training": [{"image": "imagesTr/x.nii.gz"}]}), "training")


def test_images_of_a_data_set_are_found_without_its_labels(tmp_path: Path) -> None:
    folder = named(tmp_path)
    assert find_images(folder) == [{"image": str(folder / f"images/{n}.nii.gz"), "case": n} for n in "abc"]


def test_images_of_a_plain_folder_and_a_single_file_are_found(tmp_path: Path) -> None:
    touch(tmp_path / "scan.nrrd")
    expected = [{"image": str(tmp_path / "scan.nrrd"), "case": "scan"}]
    assert find_images(tmp_path) == find_images(tmp_path / "scan.nrrd") == expected


def test_hold_out_depends_on_names_and_seed_only() -> None:
    kept, held = hold_out(items(20), 0.2, seed=1)
    assert (len(kept), len(held)) == (16, 4)
    assert sorted(item["case"] for item in kept + held) == sorted(item["case"] for item in items(20))
    again = hold_out(items(20)[::-1], 0.2, seed=1)[1]
    assert sorted(item["case"] for item in again) == sorted(item["case"] for item in held)
    assert hold_out(items(20), 0.2, seed=2)[1] != held


def test_a_group_is_never_parted() -> None:
    kept, held = hold_out(items(20, group_size=4), 0.4, group="patient")
    assert not {item["patient"] for item in kept} & {item["patient"] for item in held}
    assert len(held) == 8


def test_both_sides_of_a_split_hold_something() -> None:
    assert [len(part) for part in hold_out(items(2), 0.01)] == [1, 1]
    assert [len(part) for part in hold_out(items(2), 0.99)] == [1, 1]


def test_folds_partition_the_cases_evenly() -> None:
    folds = [fold(items(11), index, 4, seed=3) for index in range(4)]
    assert sorted(len(held) for _, held in folds) == [2, 3, 3, 3]
    assert sorted(item["case"] for _, held in folds for item in held) == sorted(item["case"] for item in items(11))
    assert all(len(kept) + len(held) == 11 for kept, held in folds)


def test_splits_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="fraction must be between 0 and 1, got 1"):
        hold_out(items(3), 1)
    with pytest.raises(UsageError, match="index must be from 0 to 3 of at least 2 folds, got 4 of 4"):
        fold(items(9), 4, 4)
    with pytest.raises(UsageError, match="items must have at least 4 groups by 'case', got 3"):
        fold(items(3), 0, 4)
    with pytest.raises(UsageError, match="group must be a key of every item, got 'site'"):
        hold_out(items(3), 0.5, group="site")


def test_the_real_hippocampus_splits_are_whole(real_data: Path) -> None:
    assert len(read_split(real_data / "hippocampus", "training")) == 208
    assert len(read_split(real_data / "hippocampus", "validation")) == 26
