import functools
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    RandFlipd,
    ScaleIntensityRanged,
    Spacingd,
)

from vol3d.data import transform_fingerprint
from vol3d.data.canonical_value import canonical_value
from vol3d.data.transform_fingerprint import TransformFingerprint, fingerprint_transforms, first_random_index
from vol3d.errors import ConfigError

FACTOR = 2.0


def pipeline(**changes):
    options = {"pixdim": (1.0, 1.0, 2.0), "a_max": 500, "margin": 0, **changes}
    return [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        Spacingd("image", pixdim=options["pixdim"]),
        ScaleIntensityRanged("image", a_min=-1000, a_max=options["a_max"], b_min=0, b_max=1),
        CropForegroundd("image", source_key="image", margin=options["margin"]),
    ]


def digest_of(function):
    return fingerprint_transforms([Lambdad("image", function)]).digest


def test_equal_transforms_have_equal_fingerprints():
    assert fingerprint_transforms(pipeline()) == fingerprint_transforms(pipeline())


def test_fingerprint_is_the_same_in_another_process():
    program = (
        "from monai.transforms import *\n"
        "from vol3d.data.transform_fingerprint import fingerprint_transforms\n"
        "t = [LoadImaged('image'), Spacingd('image', pixdim=(1, 2, 3)), Lambdad('image', abs)]\n"
        "print(fingerprint_transforms(t).digest)"
    )
    run = [sys.executable, "-c", program]
    digests = {subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()[-1]}
    here = fingerprint_transforms([LoadImaged("image"), Spacingd("image", pixdim=(1, 2, 3)), Lambdad("image", abs)])
    assert digests == {here.digest}


def test_using_a_transform_does_not_change_its_fingerprint(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32))
    transforms = [*pipeline()[:2], NormalizeIntensityd("image"), CropForegroundd("image", source_key="image")]
    before = fingerprint_transforms(transforms)
    Compose(transforms)({"image": str(tmp_path / "scan.npy")})
    assert before.differences(fingerprint_transforms(transforms)) == []
    assert before.digest == fingerprint_transforms(transforms).digest


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"a_max": 600}, "transform 3 ScaleIntensityRanged: scaler.a_max 500 -> 600"),
        (
            {"pixdim": (1.0, 1.0, 3.0)},
            "transform 2 Spacingd: spacing_transform.pixdim [1.0, 1.0, 2.0] -> [1.0, 1.0, 3.0]",
        ),
        ({"margin": 5}, "transform 4 CropForegroundd: cropper.margin 0 -> 5"),
    ],
)
def test_changed_parameter_is_named_with_both_values(change, line):
    old, new = fingerprint_transforms(pipeline()), fingerprint_transforms(pipeline(**change))
    assert old.digest != new.digest
    assert old.differences(new) == [line]


def test_order_counts_and_is_named():
    transforms = pipeline()
    swapped = [*transforms[:2], transforms[3], transforms[2], transforms[4]]
    old, new = fingerprint_transforms(transforms), fingerprint_transforms(swapped)
    assert old.digest != new.digest
    assert "order of transforms: LoadImaged > EnsureChannelFirstd > Spacingd" in old.differences(new)[0]


def test_added_transform_is_named():
    old, new = fingerprint_transforms(pipeline()[:2]), fingerprint_transforms(pipeline()[:3])
    assert old.differences(new) == [
        "list of transforms: LoadImaged > EnsureChannelFirstd -> LoadImaged > EnsureChannelFirstd > Spacingd"
    ]


def test_library_version_counts_and_is_named(monkeypatch):
    old = fingerprint_transforms(pipeline())
    monkeypatch.setattr(transform_fingerprint, "library_versions", lambda: {**old.versions, "nibabel": "99"})
    new = fingerprint_transforms(pipeline())
    assert old.digest != new.digest
    assert old.differences(new) == [f"version nibabel {old.versions['nibabel']} -> 99"]


def test_process_wide_dtype_counts_and_is_named():
    old = fingerprint_transforms(pipeline())
    torch.set_default_dtype(torch.float64)
    try:
        new = fingerprint_transforms(pipeline())
    finally:
        torch.set_default_dtype(torch.float32)
    assert old.differences(new) == ["setting default_dtype torch.float32 -> torch.float64"]


def test_json_round_trip_keeps_the_digest():
    fingerprint = fingerprint_transforms([*pipeline(), Lambdad("image", lambda x: x + np.pi)])
    again = TransformFingerprint.from_dict(json.loads(json.dumps(fingerprint.as_dict())))
    assert again == fingerprint
    assert again.digest == fingerprint.digest


def test_two_lambdas_on_one_line_differ():
    functions = [lambda x: x + 1, lambda x: x * 2]
    assert digest_of(functions[0]) != digest_of(functions[1])


def test_lambda_without_source_counts_by_what_it_does():
    first, same, other = (eval(text) for text in ("lambda x: x / 2", "lambda x: x / 2", "lambda x: x / 3"))  # noqa: S307
    assert digest_of(first) == digest_of(same) != digest_of(other)


def test_lambda_of_a_config_counts_although_it_claims_a_module_of_monai():
    first, other = (
        ConfigParser({"f": text}).get_parsed_content("f") for text in ("$lambda x: x / 2", "$lambda x: x / 3")
    )
    assert digest_of(first) != digest_of(other)


def test_captured_variables_defaults_and_globals_count(monkeypatch):
    def scaled_by(factor):
        return lambda x: x * factor

    def shifted(x, by=1):
        return x + by

    def doubled(x):
        return x * FACTOR

    assert digest_of(scaled_by(2)) == digest_of(scaled_by(2)) != digest_of(scaled_by(3))
    before = digest_of(shifted), digest_of(doubled)
    shifted.__defaults__ = (2,)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert digest_of(shifted) != before[0]
    assert digest_of(doubled) != before[1]


def test_recursive_function_has_a_fingerprint():
    def countdown(x):
        return x if x <= 0 else countdown(x - 1)

    assert digest_of(countdown) == digest_of(countdown)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 1.0),
        (1, True),
        ("1", 1),
        ([1, 2], (1, 2)),
        (np.float32(1), np.float64(1)),
        (np.zeros(3), np.zeros(3, np.float32)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.arange(1000), np.arange(1000)[::-1]),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int32)),
        (torch.float16, torch.float32),
        (np.float32, np.float64),
        (functools.partial(np.add, 1), functools.partial(np.add, 2)),
        (np.log, np.log2),
        (torch.sin, torch.cos),
        (slice(1, 2), slice(1, 3)),
        ({"a": 1}, {"a": 2}),
        ({1: 2}, {"1": 2}),
        ({"$tuple": [1]}, (1,)),
        ("x".join, "y".join),
    ],
)
def test_values_that_behave_differently_have_different_forms(first, second):
    assert json.dumps(canonical_value(first, "a")) != json.dumps(canonical_value(second, "a"))


def test_order_of_a_set_does_not_count():
    assert canonical_value({"b", "a", "c"}, "s") == canonical_value({"c", "b", "a"}, "s")


def test_file_given_as_parameter_counts_by_its_content(tmp_path):
    atlas = tmp_path / "atlas.npy"
    atlas.write_bytes(b"one")
    first = canonical_value(atlas, "atlas"), canonical_value(str(atlas), "atlas")
    atlas.write_bytes(b"two")
    assert canonical_value(atlas, "atlas") != first[0]
    assert canonical_value(str(atlas), "atlas") != first[1]


def test_edited_module_of_the_user_counts_also_through_its_imports(tmp_path, monkeypatch):
    program = (
        "import mine.outer\n"
        "from vol3d.data.canonical_value import canonical_value\n"
        "print(canonical_value(mine.outer.Scale(), 't')['code'])"
    )
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "outer.py").write_text(
        "from .inner import K\nclass Scale:\n    def __call__(self, x):\n        return K * x\n"
    )

    def code() -> str:
        run = [sys.executable, "-B", "-c", program]
        return subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    (package / "inner.py").write_text("K = 1\n")
    first = code()
    (package / "inner.py").write_text("K = 2\n")
    assert first.startswith("source ")
    assert code() != first


@pytest.mark.parametrize("value", [threading.Lock(), iter([1]), object(), (x for x in "ab")])
def test_value_with_hidden_state_is_refused_by_the_name_of_its_parameter(value):
    transform = NormalizeIntensityd("image")
    transform.normalizer.extra = {"deep": [value]}
    with pytest.raises(ConfigError, match=r"transform 0 \(NormalizeIntensityd\)\.normalizer\.extra\.deep\[0\] must be"):
        fingerprint_transforms([transform])


def test_object_that_contains_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ConfigError, match=r"x\[0\] must not contain itself, got a list"):
        canonical_value(loop, "x")


def test_random_state_never_enters():
    transform = NormalizeIntensityd("image")
    transform.R = np.random.RandomState(1)
    before = fingerprint_transforms([transform]).digest
    transform.R.uniform()
    assert fingerprint_transforms([transform]).digest == before


def test_prefix_ends_at_the_first_random_or_unknown_transform():
    random = RandFlipd("image", prob=0.5)
    for transforms, length in [
        ([*pipeline(), random, *pipeline()], 5),
        (pipeline(), 5),
        ([random], 0),
        ([*pipeline()[:1], lambda item: item], 1),
        ([Compose(pipeline()), Compose([random]), *pipeline()], 1),
    ]:
        assert first_random_index(Compose(transforms)) == length
