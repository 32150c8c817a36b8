"""Plans of runs: what fits, what is changed so that it fits, what is refused."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pytest
import torch

from vol3d.errors import RequirementError
from vol3d.inference.network_cost import NetworkCost
from vol3d.inference.run_plan import RunRequest, free_bytes, plan_run, probe_seconds
from vol3d.inference.sliding_window import StreamingSlidingWindowInferer

GIB = 2**30
COST = NetworkCost(flops=10**9, activation_bytes=300 * 2**20, weight_bytes=6 * 2**20, num_channels=100)
REQUEST = RunRequest((512, 512, 512), COST, held_bytes=GIB)


def plan(memory_bytes: int, batch: int = 4, request: RunRequest = REQUEST, **options: Any) -> Any:
    return plan_run(StreamingSlidingWindowInferer((96, 96, 96), batch), request, memory_bytes, **options)


def test_enough_memory_changes_nothing() -> None:
    result = plan(40 * GIB)
    assert (result.sw_batch_size, result.num_tiles, result.steps) == (4, (1, 1, 1), ())
    assert result.num_windows == 343
    assert result.flops == 343 * 10**9
    assert result.peak_bytes > GIB + 100 * 512 * 512 * 97 * 4


def test_the_batch_shrinks_before_tiles_are_used(caplog: pytest.LogCaptureFixture) -> None:
    whole = plan(40 * GIB).peak_bytes
    with caplog.at_level(logging.WARNING):
        result = plan(whole - 1)
    assert (result.sw_batch_size, result.num_tiles) == (2, (1, 1, 1))
    assert result.steps == ("2 instead of 4 windows per call",)
    assert "2 instead of 4 windows per call" in caplog.text


def test_tiles_make_a_hundred_classes_fit() -> None:
    result = plan(6 * GIB)
    assert result.sw_batch_size == 1
    assert math.prod(result.num_tiles) > 1
    assert result.peak_bytes <= 6 * GIB
    assert result.num_windows > 343
    assert "tiles" in result.steps[1]


def test_the_window_shrinks_only_on_request() -> None:
    with pytest.raises(RequirementError, match=r"memory must be at least \S+ GiB .* got 2.3 GiB; allow more"):
        plan(int(2.3 * GIB))
    result = plan(int(2.3 * GIB), may_shrink_window=True)
    assert result.roi_size < (96, 96, 96)
    assert all(edge % 16 == 0 for edge in result.roi_size)
    assert "labels may differ" in result.steps[-1]


def test_what_cannot_fit_at_all_is_refused_with_the_memory_it_takes() -> None:
    with pytest.raises(RequirementError, match=r"memory must be at least .* got 512.0 MiB"):
        plan(512 * 2**20, may_shrink_window=True)


def test_flips_multiply_the_operations_and_skipped_windows_save_them() -> None:
    # Of seven starts along H (0 72 144 216 288 360 416) only the first three begin below 150.
    request = RunRequest((512, 512, 512), COST, GIB, num_passes=8, is_needed=lambda box: box[0][0] < 150)
    result = plan(40 * GIB, request=request)
    assert (result.num_windows, result.num_skipped) == (147, 196)
    assert result.flops == 147 * 8 * 10**9


def test_the_plan_steers_the_inferer() -> None:
    inferer = plan(6 * GIB).apply(StreamingSlidingWindowInferer((96, 96, 96), 4))
    assert inferer.sw_batch_size == 1
    tiled = inferer.plan(REQUEST.volume_shape).within(inferer.memory_bytes or 0, COST.num_channels)
    assert tiled.num_tiles == plan(6 * GIB).num_tiles


def test_plans_are_plain_json() -> None:
    values = json.loads(json.dumps(plan(6 * GIB).as_dict()))
    assert values["expected_seconds"] is None
    assert values["memory_bytes"] == 6 * GIB


def test_without_a_limit_most_of_the_free_memory_is_used() -> None:
    small = RunRequest((32, 32, 32), NetworkCost(1, 1, 1, 1), 0)
    result = plan_run(StreamingSlidingWindowInferer(16), small)
    assert result.memory_bytes == pytest.approx(free_bytes("cpu"), rel=0.5)


def test_the_probe_times_the_middle_of_the_volume() -> None:
    volume = torch.zeros(1, 9, 9, 3)
    volume[:, 4, 4, 1] = 7
    seen = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows.clone())
        return windows

    assert probe_seconds(StreamingSlidingWindowInferer(5, sw_batch_size=2), volume, network) > 0
    assert [tuple(w.shape) for w in seen] == [(2, 1, 5, 5, 5)] * 2
    assert seen[0].max() == 7
