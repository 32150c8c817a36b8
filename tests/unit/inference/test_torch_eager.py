"""The eager runtime: the network itself, and how far reduced precision is from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vol3d.errors import UsageError
from vol3d.inference.runtimes.torch_eager import TorchRuntime, agreement
from vol3d.inference.sliding_window import StreamingSlidingWindowInferer


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Conv3d(4, 3, 1))


def test_logits_are_those_of_the_network_in_evaluation_mode() -> None:
    network = small_network().train()
    windows = torch.randn(2, 1, 8, 8, 8)
    runtime = TorchRuntime(network)
    torch.testing.assert_close(runtime(windows), network.eval()(windows), rtol=1e-5, atol=1e-5)
    assert runtime.report.max_difference is None
    assert (runtime.report.name, runtime.report.precision, runtime.windows_per_call) == ("torch", "f32", 1)


def test_mixed_precision_returns_float32_and_reports_its_distance() -> None:
    runtime = TorchRuntime(small_network(), precision="bf16")
    logits = runtime(torch.randn(1, 1, 8, 8, 8))
    assert logits.dtype == torch.float32
    assert runtime.report.max_difference is not None
    assert 0 < runtime.report.max_difference < 0.05
    assert runtime.report.foreground_dice is not None


def test_a_runtime_is_a_network_for_the_sliding_window() -> None:
    volume = torch.randn(1, 1, 9, 9, 9)
    runtime = TorchRuntime(small_network())
    result = StreamingSlidingWindowInferer(8, 2, 0.5)(volume, runtime)
    assert result.shape == (1, 3, 9, 9, 9)
    # The result is an ordinary tensor, no inference tensor that autograd would refuse later.
    assert not result.is_inference()


def test_agreement_by_hand() -> None:
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]).T.reshape(1, 2, 4, 1, 1)
    logits = expected.clone()
    logits[0, :, 3] = torch.tensor([2.0, 0.0]).reshape(2, 1, 1)
    # Three foreground voxels against two, which are shared: 2 * 2 / 5.
    assert agreement(logits, expected) == (2.0, pytest.approx(0.8))
    assert agreement(expected[:, :1] - 2, expected[:, :1] - 2) == (0.0, 1.0)
    logits[0, 0, 0] = float("nan")
    assert agreement(logits, expected)[1] == 0.0


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="precision must be one of f32, bf16, f16, got 'int8'"):
        TorchRuntime(small_network(), precision="int8")
