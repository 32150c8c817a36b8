from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from vol3d.errors import ConfigError
from vol3d.transforms.augment_settings import IntensitySettings, SpatialSettings


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (SpatialSettings, {"rotation_probability": 1.2}, r"rotation_probability .* got 1.2"),
        (SpatialSettings, {"flip_probability": (0.5, -0.1, 0.5)}, r"flip_probability .* -0.1"),
        (SpatialSettings, {"rotation_degrees": (10, -10)}, r"rotation_degrees must be \(low, high\)"),
        (SpatialSettings, {"scale_range": (0.0, 1.0)}, r"scale_range must be above 0"),
        (SpatialSettings, {"translation_vox": (float("nan"), 1.0)}, r"translation_vox must be finite"),
        (
            SpatialSettings,
            {"elastic_displacement_mm": (0, 11), "elastic_spacing_mm": 24},
            r"must not exceed 9.6 .* got 11",
        ),
        (SpatialSettings, {"elastic_displacement_mm": (-1, 1)}, r"elastic_displacement_mm must be at least 0"),
        (SpatialSettings, {"spacing_mm": (1, 0, 1)}, r"spacing_mm must be 3 positive lengths, got \(1, 0, 1\)"),
        (SpatialSettings, {"padding": "reflect"}, r"padding must be 'constant' or 'border', got 'reflect'"),
        (SpatialSettings, {"num_label_classes": 1}, r"num_label_classes must be at least 2, got 1"),
        (IntensitySettings, {"gamma_range": (0, 2)}, r"gamma_range must be above 0"),
        (IntensitySettings, {"gaussian_noise_sigma": (-0.1, 1)}, r"gaussian_noise_sigma must be at least 0"),
        (IntensitySettings, {"low_resolution_zoom": (0.5, 1.5)}, r"low_resolution_zoom must not exceed 1"),
        (IntensitySettings, {"bias_field_degree": 0}, r"bias_field_degree must be 1 to 6, got 0"),
        (IntensitySettings, {"window_jitter_probability": 0.5}, r"window_hu must be given .* got None"),
        (
            IntensitySettings,
            {"window_hu": (0, 30), "window_jitter_hu": (-20, 20), "window_jitter_probability": 0.1},
            r"window_jitter_hu must leave a window of 30 HU open",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_ranges_written_as_lists_become_tuples_so_that_settings_stay_immutable() -> None:
    settings = SpatialSettings(rotation_degrees=[-5, 5])  # type: ignore[arg-type]
    assert settings.rotation_degrees == (-5, 5)
    hash(settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.padding = "border"  # type: ignore[misc]


def test_a_range_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scale_range must hold 2 numbers, got \(1.0, 1.1, 1.2\)"):
        SpatialSettings(scale_range=(1.0, 1.1, 1.2))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"flip_probability must hold 3 numbers, got 0.5"):
        SpatialSettings(flip_probability=0.5)  # type: ignore[arg-type]
