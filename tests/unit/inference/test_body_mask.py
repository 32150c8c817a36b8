"""Skipping windows outside the body: what is body, and what must never be skipped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from vol3d.errors import ConfigError, IntensityError
from vol3d.inference.body_mask import SkipOutsideBody, coarse_body
from vol3d.inference.sliding_window import StreamingSlidingWindowInferer


def chest(shape: tuple[int, int, int] = (80, 80, 60)) -> torch.Tensor:
    """A body of 40 x 40 mm through all slices, air-filled lungs inside, in 80 x 80 mm of air, in HU."""
    volume = torch.full((1, *shape), -1000.0)
    volume[:, 20:60, 20:60] = 40.0
    volume[:, 26:54, 26:54] = -850.0
    return volume


def needed(volume: torch.Tensor, **options: Any) -> Any:
    return SkipOutsideBody(**{"spacing_mm": (1, 1, 1), **options})(volume)


def test_air_far_from_the_body_is_not_needed() -> None:
    is_needed = needed(chest(), margin_mm=4)
    assert not is_needed(((0, 8), (0, 80), (0, 60)))
    assert is_needed(((0, 20), (20, 40), (0, 10)))


def test_lungs_are_body_although_they_reach_both_ends_of_the_scan() -> None:
    assert needed(chest(), margin_mm=0)(((36, 40), (36, 40), (28, 32)))


def test_the_margin_is_kept_on_all_sides() -> None:
    volume = torch.full((1, 100, 100, 100), -1000.0)
    volume[:, 40:60, 40:60, 40:60] = 0
    is_needed = needed(volume, margin_mm=20)
    for axis in range(3):
        for low in (21, 78):
            box = [(40, 60)] * 3
            box[axis] = (low, low + 1)
            assert is_needed(tuple(box)), (axis, low)


def test_a_table_and_noise_are_not_body() -> None:
    volume = chest()
    volume[:, 76:77] = 300.0
    volume += torch.randn(volume.shape, generator=torch.Generator().manual_seed(0)) * 30
    assert not needed(volume, margin_mm=2)(((70, 80), (0, 80), (0, 60)))


def test_both_legs_are_body() -> None:
    volume = torch.full((1, 80, 80, 40), -1000.0)
    volume[:, 4:30, 20:60] = 0
    volume[:, 54:76, 20:60] = 0
    is_needed = needed(volume, margin_mm=0)
    assert is_needed(((4, 30), (20, 60), (0, 40)))
    assert is_needed(((54, 76), (20, 60), (0, 40)))


def test_input_scaled_to_a_window_gives_the_same_body() -> None:
    scaled = ((chest() + 1000) / 1400).clamp(0, 1)
    body, edge = coarse_body(chest()[0], -500, (1, 1, 1), 8)
    again, _ = coarse_body(scaled[0], 500 / 1400, (1, 1, 1), 8)
    assert edge == (4, 4, 4)
    assert (body == again).all()
    box = ((0, 8), (0, 8), (0, 60))
    assert needed(scaled, window_hu=(-1000, 400))(box) == needed(chest())(box)


def test_spacing_is_taken_from_the_affine_of_the_volume() -> None:
    volume = MetaTensor(chest(), affine=torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0])))
    # A margin of 20 mm is five voxels of 4 mm: voxel 10 is ten voxels off the skin, voxel 16 is four.
    is_needed = SkipOutsideBody(margin_mm=20)(volume)
    assert not is_needed(((9, 10), (30, 40), (30, 31)))
    assert is_needed(((16, 17), (30, 40), (30, 31)))


def test_nothing_but_air_is_all_skipped() -> None:
    assert not needed(torch.full((1, 20, 20, 20), -1000.0))(((0, 20), (0, 20), (0, 20)))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 50, 3)])
def test_thin_volumes_have_a_body_too(shape: Any) -> None:
    assert needed(torch.zeros(1, *shape))(tuple((0, n) for n in shape))


def test_skipping_changes_no_label_when_the_foreground_is_in_the_body() -> None:
    volume = chest()
    seen = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        seen.append(len(windows))
        return torch.cat([torch.full_like(windows, 1.0), (windows > 0) * 2.0], dim=1)

    options: dict[str, Any] = {"roi_size": 16, "overlap": 0.25}
    full = StreamingSlidingWindowInferer(**options)(volume[None], network).argmax(1)
    count_full, seen[:] = sum(seen), []
    skip = SkipOutsideBody(margin_mm=4, spacing_mm=(1, 1, 1))
    skipped = StreamingSlidingWindowInferer(**options, skip=skip, num_channels=2)(volume[None], network).argmax(1)
    assert torch.equal(full, skipped)
    assert sum(seen) < 0.6 * count_full


def test_wrong_declarations_are_refused() -> None:
    with pytest.raises(ConfigError, match="margin_mm must not be negative, got -1"):
        SkipOutsideBody(margin_mm=-1)
    with pytest.raises(ConfigError, match=r"below_hu must lie inside window_hu \(-160, 240\), got -500"):
        SkipOutsideBody(window_hu=(-160, 240))
    with pytest.raises(ConfigError, match="spacing_mm must be given"):
        SkipOutsideBody()(chest())
    with pytest.raises(IntensityError, match="channel must be below 1, got 2"):
        needed(chest(), channel=2)
