"""Operations and live memory of one window, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vol3d.errors import UsageError
from vol3d.inference.network_cost import network_cost


def test_a_convolution_by_hand() -> None:
    network = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv3d(4, 5, 1))
    cost = network_cost(network, (2, 10, 8, 6))
    voxels = 10 * 8 * 6
    assert cost.flops == 2 * voxels * (27 * 2 * 4 + 4 * 5)
    assert cost.num_channels == 5
    assert cost.weight_bytes == 4 * (27 * 2 * 4 + 4 + 4 * 5 + 5)
    # The window of two channels, the four of the first convolution and the five of the second are alive together.
    assert cost.activation_bytes == 4 * voxels * (2 + 4 + 5)


def test_freed_tensors_no_longer_count() -> None:
    network = nn.Sequential(*[nn.Conv3d(4, 4, 1) for _ in range(6)])
    # The window, which the caller holds, one layer's input and its output.
    assert network_cost(network, (4, 4, 4, 4)).activation_bytes == 3 * 4 * 4 * 64


def test_the_network_itself_stays_where_and_as_it_was() -> None:
    network = nn.Conv3d(1, 2, 1).train()
    network_cost(network, (1, 4, 4, 4))
    assert network.weight.device.type == "cpu"
    assert network.training


def test_cost_grows_with_the_window() -> None:
    network = nn.Conv3d(1, 2, 3, padding=1)
    small, large = network_cost(network, (1, 4, 4, 4)), network_cost(network, (1, 8, 4, 4))
    assert small.scaled(2) == large


def test_windows_that_do_not_fit_the_network_are_named() -> None:
    with pytest.raises(UsageError, match=r"network must take windows of \(3, 4, 4, 4\), got: .+; give"):
        network_cost(nn.Conv3d(1, 2, 1), (3, 4, 4, 4))
    with pytest.raises(UsageError, match="network must take windows"):
        network_cost(nn.Flatten(start_dim=0, end_dim=9), (1, 4, 4, 4))
    assert torch.is_grad_enabled()
