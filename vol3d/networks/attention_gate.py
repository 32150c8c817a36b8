"""Additive attention gate for skip connections in 3D.

Source: O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", 2018, arXiv:1804.03999,
equations 1 and 2. As there, the attention coefficients are computed on the coarser grid of the gating signal and
interpolated to the skip connection's grid. MONAI 1.6.1 upsamples the gating signal first and computes the gate at
full resolution with batch norm, which costs eight times the arithmetic and depends on the batch.
Differences from the paper: instance norm inside the gate (batches are small), and the gated skip connection is
handed on without the paper's output transform, whose convolution the decoder block repeats anyway.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class AttentionGate(nn.Module):
    """Weight a skip connection by where the coarser gating signal finds it relevant.

    Args:
        skip_channels: Channels of the skip connection.
        gate_channels: Channels of the gating signal.
        hidden_channels: Channels of the additive comparison.
    """

    def __init__(self, skip_channels: int, gate_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.skip_projection = nn.Conv3d(skip_channels, hidden_channels, kernel_size=2, stride=2, bias=False)
        self.gate_projection = nn.Conv3d(gate_channels, hidden_channels, kernel_size=1)
        self.norm = nn.GroupNorm(hidden_channels, hidden_channels)  # instance norm; see attention_unet
        self.score = nn.Conv3d(hidden_channels, 1, kernel_size=1)

    def forward(self, skip: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Return ``skip`` times its attention coefficients.

        Args:
            skip: ``B C H W D``, each of ``H W D`` even.
            gate: ``B C' H/2 W/2 D/2``.
        """
        compared = F.relu(self.norm(self.skip_projection(skip) + self.gate_projection(gate)))
        coefficients = torch.sigmoid(self.score(compared))
        return skip * F.interpolate(coefficients, scale_factor=2.0, mode="trilinear", align_corners=False)
