"""The additive attention gate against equations 1 and 2 of its paper, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from vol3d.networks.attention_gate import AttentionGate


def test_gate_with_zero_weights_halves_the_skip_connection() -> None:
    gate = AttentionGate(skip_channels=2, gate_channels=3, hidden_channels=2)
    torch.nn.init.zeros_(gate.score.weight)
    torch.nn.init.zeros_(gate.score.bias)
    skip = torch.randn(1, 2, 4, 6, 8)
    # The score is 0 everywhere, and the sigmoid of 0 is 1/2.
    torch.testing.assert_close(gate(skip, torch.randn(1, 3, 2, 3, 4)), skip / 2)


def test_gate_agrees_with_the_equations_worked_out_by_hand() -> None:
    gate = AttentionGate(skip_channels=1, gate_channels=1, hidden_channels=1)
    with torch.no_grad():
        gate.skip_projection.weight.fill_(1 / 8)  # mean over each 2x2x2 block
        gate.gate_projection.weight.fill_(1.0)
        gate.gate_projection.bias.zero_()
        gate.score.weight.fill_(2.0)
        gate.score.bias.fill_(-1.0)
    skip = torch.ones(1, 1, 4, 2, 2)
    skip[:, :, 2:] = 3.0
    gating = torch.zeros(1, 1, 2, 1, 1)
    # Sums are 1 and 3; instance norm (mean 2, variance 1) makes them -1 and +1; ReLU 0 and 1; scores -1 and +1.
    normed = 1 / (1 + gate.norm.eps) ** 0.5
    low = torch.sigmoid(torch.tensor(-1.0)).item()
    high = torch.sigmoid(torch.tensor(2.0 * normed - 1)).item()
    # Trilinear interpolation from 2 to 4 voxels puts weights 1, 3/4, 1/4, 0 on the first of the two.
    expected = torch.tensor([low, 0.75 * low + 0.25 * high, 3 * (0.25 * low + 0.75 * high), 3 * high])
    torch.testing.assert_close(gate(skip, gating)[0, 0, :, 0, 0], expected)


def test_a_gate_never_amplifies() -> None:
    torch.manual_seed(0)
    skip = torch.randn(2, 4, 8, 4, 6)
    gated = AttentionGate(4, 8, 2)(skip, 10 * torch.randn(2, 8, 4, 2, 3))
    assert (gated.abs() <= skip.abs()).all()


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    gate, skip, gating = AttentionGate(2, 2, 2), torch.randn(3, 2, 4, 4, 4), torch.randn(3, 2, 2, 2, 2)
    alone = torch.cat([gate(skip[i : i + 1], gating[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(gate(skip, gating), alone)


def test_a_gating_signal_on_the_wrong_grid_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"):
        AttentionGate(1, 1, 1)(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4))
