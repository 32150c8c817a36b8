"""The golden answer is repeated by the same weights and by no others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from vol3d.bundle.golden_check import TOLERANCE, check_golden, golden_path, write_golden
from vol3d.errors import WeightsError


def test_the_same_bundle_repeats_its_answer(maker: Any) -> None:
    write_golden(maker.weights(), seed=3)
    assert check_golden(maker.layout) == []


def test_the_recorded_answer_is_the_networks(maker: Any) -> None:
    layout = maker.weights()
    content = json.loads(write_golden(layout).read_text())["outputs"]["pred"]
    network = nn.Conv3d(1, 3, 1)
    network.load_state_dict(torch.load(layout.weights_path))
    assert content["shape"] == [1, 3, 4, 6, 4]
    assert len(content["samples"]) == 8
    # A 1x1x1 convolution of values in [0, 1]: all values lie between those at 0 and at 1.
    ends = torch.stack([network.bias, network.bias + network.weight.flatten()])
    assert ends.min() <= content["mean"] <= ends.max()
    assert all(ends.min() <= value <= ends.max() for value in content["samples"].values())


def test_other_weights_give_another_answer(maker: Any) -> None:
    layout = maker.weights()
    write_golden(layout)
    weights = torch.load(layout.weights_path)
    weights["bias"] += 2 * TOLERANCE
    maker.weights(weights)
    (finding,) = check_golden(layout)
    assert "golden mean of pred must be" in finding
    assert "weights or code differ" in finding


def test_rounding_of_another_machine_is_no_finding(maker: Any) -> None:
    layout = maker.weights()
    write_golden(layout)
    weights = torch.load(layout.weights_path)
    weights["bias"] += TOLERANCE / 10
    maker.weights(weights)
    assert check_golden(layout) == []


def test_a_value_that_is_not_finite_is_a_finding(maker: Any) -> None:
    layout = maker.weights()
    write_golden(layout)
    weights = torch.load(layout.weights_path)
    weights["bias"].fill_(torch.nan)
    maker.weights(weights)
    assert len(check_golden(layout)) == 1


def test_another_shape_is_a_finding(maker: Any) -> None:
    layout = maker.weights()
    write_golden(layout)
    maker.metadata(lambda data: data["network_data_format"]["inputs"]["image"].update(spatial_shape=[4, 4, 4]))
    (finding,) = check_golden(layout)
    assert "golden shape of pred must be [1, 3, 4, 6, 4], got [1, 3, 4, 4, 4]" in finding


def test_a_missing_file_is_a_finding(maker: Any) -> None:
    (finding,) = check_golden(maker.weights())
    assert "docs/golden.json must hold" in finding


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"seed": "x"}'])
def test_an_unreadable_file_is_a_finding(maker: Any, content: str) -> None:
    write_golden(maker.weights())
    golden_path(maker.layout).write_text(content)
    (finding,) = check_golden(maker.layout)
    assert "docs/golden.json must be readable" in finding


def test_missing_weights_are_an_error(maker: Any) -> None:
    with pytest.raises(WeightsError, match=r"models/model\.pt"):
        write_golden(maker.layout)
    assert not golden_path(maker.layout).exists()
