from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from vol3d.transforms.augment_draw import AugmentDraw, SampleIdentity, center_start, stream
from vol3d.transforms.augment_settings import IntensitySettings, SpatialSettings

ALL = {"window_hu": (-100.0, 200.0)}


def always(settings: Any, **changes: Any) -> Any:
    names = [f.name for f in fields(settings) if f.name.endswith("_probability")]
    values: dict[str, Any] = dict.fromkeys(names, 1.0)
    if "flip_probability" in values:
        values["flip_probability"] = (1.0, 0.0, 1.0)
    return settings(**{**values, **changes})


def sample(**changes: Any) -> SampleIdentity:
    plain = SampleIdentity(case="case-7", draw=0, epoch=3, shape=(20, 30, 40), spacing_mm=(1.0, 1.0, 1.0))
    return replace(plain, **changes)


def draw(**changes: Any) -> AugmentDraw:
    options: dict[str, Any] = {
        "roi_size": (16, 16, 16),
        "spatial": always(SpatialSettings),
        "intensity": always(IntensitySettings, **ALL),
        "seed": 5,
    }
    return AugmentDraw(**{**options, **changes})


def test_parameters_are_plain_json() -> None:
    parameters = draw()(sample())
    assert json.loads(json.dumps(parameters)) == parameters


def test_every_operation_with_probability_one_is_listed() -> None:
    parameters = draw()(sample())
    assert set(parameters["spatial"]) == {
        "rotation_degrees", "scale", "shear", "translation_vox", "elastic", "flip_axes"
    }  # fmt: skip
    assert parameters["spatial"]["flip_axes"] == [0, 2]
    assert set(parameters["intensity"]) == {
        "window_hu", "bias_field", "blur_sigma_vox", "low_resolution_zoom", "gaussian_noise", "rician_noise",
        "poisson_noise", "brightness", "shift", "contrast", "gamma_inverted", "gamma",
    }  # fmt: skip


def test_an_operation_with_probability_zero_is_never_listed() -> None:
    spatial = {f.name: 0.0 for f in fields(SpatialSettings) if f.name.endswith("_probability")}
    spatial["flip_probability"] = (0.0, 0.0, 0.0)  # type: ignore[assignment]
    intensity = {f.name: 0.0 for f in fields(IntensitySettings) if f.name.endswith("_probability")}
    quiet = draw(spatial=SpatialSettings(**spatial), intensity=IntensitySettings(**intensity))  # type: ignore[arg-type]
    for epoch in range(20):
        parameters = quiet(sample(epoch=epoch))
        assert parameters["spatial"] == {}
        assert parameters["intensity"] == {}


@pytest.mark.parametrize("change", [{"case": "case-8"}, {"case": 7}, {"draw": 1}, {"epoch": 4}])
def test_another_case_draw_or_epoch_draws_anew(change: dict[str, Any]) -> None:
    assert draw()(sample(**change))["spatial"] != draw()(sample())["spatial"]


def test_another_seed_draws_anew_and_the_same_seed_does_not() -> None:
    assert draw(seed=6)(sample())["spatial"] != draw()(sample())["spatial"]
    assert draw()(sample()) == draw()(sample())


def test_names_that_read_alike_when_joined_have_streams_of_their_own() -> None:
    keys = [(1, "11"), (11, "1"), (1, 11), (111,), ("1", 11), (1, "1", "1")]
    assert len({float(stream(0, *key).random()) for key in keys}) == len(keys)


def test_switching_one_operation_off_leaves_the_draws_of_the_others() -> None:
    fewer = draw(spatial=always(SpatialSettings, rotation_probability=0.0))(sample())
    everything = draw()(sample())
    del everything["spatial"]["rotation_degrees"]
    assert fewer == everything


def test_draws_stay_within_their_ranges_and_fill_them() -> None:
    spatial = always(SpatialSettings, rotation_degrees=(-10, 20), is_scale_isotropic=False, scale_range=(0.5, 2.0))
    drawn = [draw(spatial=spatial)(sample(epoch=epoch)) for epoch in range(400)]
    angles = np.array([p["spatial"]["rotation_degrees"] for p in drawn])
    assert angles.min() >= -10
    assert angles.max() <= 20
    assert angles.min() < -9
    assert angles.max() > 19
    scales = np.array([p["spatial"]["scale"] for p in drawn])
    # Evenly in the logarithm: as often below 1 as above.
    assert abs((scales < 1).mean() - 0.5) < 0.05
    gammas = np.array([p["intensity"]["gamma"] for p in drawn])
    assert abs((gammas < 1).mean() - 0.5) < 0.1
    assert 0.7 <= gammas.min() < gammas.max() <= 1.5


def test_operations_occur_as_often_as_their_probability_says() -> None:
    settings = SpatialSettings(rotation_probability=0.3, flip_probability=(0.1, 0.5, 0.9))
    drawn = [draw(spatial=settings)(sample(case=number))["spatial"] for number in range(1500)]
    assert abs(np.mean(["rotation_degrees" in d for d in drawn]) - 0.3) < 0.04
    flips = Counter(axis for d in drawn for axis in d["flip_axes"])
    assert [abs(flips[axis] / 1500 - p) < 0.04 for axis, p in enumerate((0.1, 0.5, 0.9))] == [True] * 3


def test_an_isotropic_scale_is_one_factor() -> None:
    assert len(set(draw()(sample())["spatial"]["scale"])) == 1


def test_a_random_crop_stays_inside_and_reaches_both_ends() -> None:
    cropper = draw(spatial=always(SpatialSettings, is_random_crop=True))
    starts = np.array([cropper(sample(epoch=epoch, shape=(18, 16, 10)))["start_vox"] for epoch in range(60)])
    assert set(starts[:, 0]) == {0, 1, 2}
    assert set(starts[:, 1]) == {0}
    assert set(starts[:, 2]) == {-3}


def test_a_given_center_decides_where_the_patch_lies() -> None:
    assert draw()(sample(center_vox=(8, 9, 30)))["start_vox"] == [0, 1, 22]


def test_the_jittered_window_keeps_within_its_jitter_and_the_unjittered_one_is_exact() -> None:
    intensity = IntensitySettings(window_hu=(-100, 200), window_jitter_probability=0.5, window_jitter_hu=(-10, 10))
    windows = [draw(intensity=intensity)(sample(case=n))["intensity"]["window_hu"] for n in range(200)]
    exact = sum(window == [-100, 200] for window in windows)
    assert 70 < exact < 130
    assert all(-110 <= low <= -90 and 190 <= high <= 210 for low, high in windows)


@pytest.mark.parametrize(("size", "roi", "start"), [(8, 4, 2), (9, 4, 2), (8, 5, 2), (9, 5, 2), (4, 8, -2), (4, 7, -1)])
def test_the_central_patch_starts_where_monai_lets_it_start(size: int, roi: int, start: int) -> None:
    assert center_start(size, roi) == start
