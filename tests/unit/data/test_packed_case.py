import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, EnsureChannelFirstd, Invertd, LoadImaged, Orientationd, Spacingd
from monai.utils.enums import MetaKeys, SpaceKeys, TraceKeys

from vol3d.data.case_key import CaseKey
from vol3d.data.case_packer import pack_case
from vol3d.errors import DataError

NO_KEY = CaseKey("0" * 64, {}, {})


def key_for(item) -> CaseKey:
    return CaseKey("0" * 64, {}, {at: f"digest of {leaf}" for at, leaf in item.items() if "/" in str(leaf)})


def round_trip(case, item=None, other=None):
    return pack_case(case, item or {}, key_for(item or {})).unpack(other or item or {})


PLAIN = {
    "none": None,
    "flag": True,
    "count": 3,
    "ratio": 0.1,
    "text": "é \udcff",
    "pair": (1, [2, (3,)]),
    "keys": {1: "a", (2, 3): "b", "$": 4},
    "space": SpaceKeys.RAS,
    "meta_key": {MetaKeys.AFFINE: 1},
    "types": [torch.float16, np.dtype("f8"), np.float32, torch.device("cpu"), torch.Size([1, 2])],
}


def test_plain_values_come_back_equal_and_of_the_same_type():
    back = round_trip(PLAIN)
    assert back == PLAIN
    assert [type(value) for value in back.values()] == [type(value) for value in PLAIN.values()]
    assert [type(value) for value in back["types"]] == [type(value) for value in PLAIN["types"]]
    assert next(iter(back["meta_key"])) is MetaKeys.AFFINE


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5, dtype=">i2"),
        np.arange(5000, dtype=">f4"),
        np.array(["left", "right"]),
        np.array([b"ab", b""]),
        np.array([None, "x", 3], dtype=object),
        np.zeros((0, 3)),
        np.array(2.5),
        np.linspace(0, 1, 6000).reshape(10, 20, 30),
        np.ones(400, dtype=np.longdouble),
        np.arange(3000, dtype=np.uint16),
    ],
)
def test_arrays_come_back_with_their_dtype_and_can_be_written_to(array):
    back = round_trip({"a": array})["a"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    back[...] = 0


def test_numpy_scalars_stay_scalars():
    back = round_trip({"s": np.float32(0.1)})["s"]
    assert type(back) is np.float32
    assert back == np.float32(0.1)


def test_cases_may_be_lists_of_dictionaries():
    back = round_trip([{"image": torch.ones(3)}, {"image": torch.zeros(3)}])
    assert [float(part["image"].sum()) for part in back] == [3.0, 0.0]


def oblique_scan(folder):
    affine = np.array([[0.0, -1.5, 0.2, 30], [0.9, 0, 0, -20], [0, 0.2, 2.5, 7], [0, 0, 0, 1]])
    voxels = np.zeros((12, 14, 9), np.int16)
    voxels[3:9, 2:11, 2:7] = np.random.default_rng(0).integers(100, 2000, (6, 9, 5))
    path = folder / "doe_john.nii.gz"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def transforms():
    return Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(1.0, 1.0, 1.0)),
            CropForegroundd("image", source_key="image", margin=1),
        ]
    )


def test_inversion_from_a_packed_case_restores_the_scan_grid(tmp_path):
    item = {"image": str(oblique_scan(tmp_path))}
    compose = transforms()
    fresh = compose(item)
    invert = Invertd("image", transform=compose, orig_keys="image")
    expected = invert(dict(fresh))["image"]
    cached = round_trip(fresh, item)
    assert cached["image"].shape == fresh["image"].shape != (1, 12, 14, 9)
    inverted = Invertd("image", transform=transforms(), orig_keys="image")(cached)["image"]
    assert inverted.shape == (1, 12, 14, 9)
    assert torch.equal(inverted.as_tensor(), expected.as_tensor())
    assert torch.equal(inverted.affine, expected.affine)


def test_meta_tensor_keeps_affine_metadata_and_operations(tmp_path):
    item = {"image": str(oblique_scan(tmp_path))}
    fresh = transforms()(item)["image"]
    cached = round_trip({"image": fresh}, item)["image"]
    assert type(cached) is MetaTensor
    assert torch.equal(cached.affine, fresh.affine)
    assert cached.affine.dtype == fresh.affine.dtype
    assert list(cached.meta) == list(fresh.meta)
    assert cached.meta["filename_or_obj"] == fresh.meta["filename_or_obj"] == item["image"]
    for operation in fresh.applied_operations:
        operation[TraceKeys.ID] = TraceKeys.NONE
    assert repr(cached.applied_operations[:2]) == repr(fresh.applied_operations[:2])
    assert torch.equal((cached + 1).as_tensor(), fresh.as_tensor() + 1)


def test_packed_case_names_no_file_and_follows_a_moved_one(tmp_path):
    path = oblique_scan(tmp_path)
    item = {"image": str(path), "patient": "Doe, John"}
    case = transforms()(item)
    packed = pack_case(case, item, key_for(item))
    assert b"doe" not in packed.tree.lower()
    assert packed.belongs_to is None
    moved = {"image": "/elsewhere/other.nii.gz", "patient": "Roe"}
    assert packed.unpack(moved)["image"].meta["filename_or_obj"] == "/elsewhere/other.nii.gz"
    assert packed.unpack(moved)["patient"] == "Roe"


@pytest.mark.parametrize("text", ["seg_ct1", "study of doe_john", "/data/doe_john/ct1_seg.nii.gz"])
def test_case_with_a_text_made_from_its_path_belongs_to_it(text):
    item = {"image": "/data/doe_john/ct1.nii.gz"}
    key = key_for(item)
    assert pack_case({"out": text}, item, key).belongs_to == key.paths_digest
    assert pack_case({"out": "bilinear"}, item, key).belongs_to is None


def test_text_that_two_inputs_share_belongs_to_their_paths():
    item = {"image": "/data/a.nii", "reference": "/data/a.nii"}
    key = key_for(item)
    assert pack_case({"name": "/data/a.nii"}, item, key).belongs_to == key.paths_digest


def test_tuples_of_applied_operations_stay_tuples(tmp_path):
    item = {"image": str(oblique_scan(tmp_path))}
    operations = round_trip(transforms()(item), item)["image"].applied_operations
    assert operations[0]["orig_size"] == (12, 14, 9)
    assert {operation["id"] for operation in operations} == {TraceKeys.NONE}


def test_every_unpacking_gives_new_memory():
    packed = pack_case({"image": MetaTensor(torch.ones(1, 9, 9, 9)), "points": np.ones(3), "list": [1]}, {}, NO_KEY)
    first = packed.unpack({})
    first["image"].zero_()
    first["image"].meta["note"] = "changed"
    first["points"] += 1
    first["list"].append(2)
    again = packed.unpack({})
    assert again["image"].sum() == 9**3
    assert "note" not in again["image"].meta
    assert again["points"].sum() == 3
    assert again["list"] == [1]


def test_tree_is_plain_json():
    tree = json.loads(pack_case({"image": torch.ones(3, 3)}, {}, NO_KEY).tree)
    assert tree == {"image": {"$": "tensor", "index": 0}}


def test_value_that_is_no_data_is_refused_by_name():
    with pytest.raises(
        DataError, match=r"case\.image\[1\]\.reader must be a tensor, an array or a plain value .*object"
    ):
        round_trip({"image": [0, {"reader": object()}]})
