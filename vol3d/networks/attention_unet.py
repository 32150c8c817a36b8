"""3D attention U-Net for volumes of any size.

Source: the U-Net of Ö. Çiçek et al. 2016 (arXiv:1606.06650) with the additive gates of O. Oktay et al. 2018
(arXiv:1804.03999). MONAI 1.6.1 has ``AttentionUnet``; this one replaces it because that one fails on sizes that are
not a multiple of its stride, computes its gates at full resolution, and uses batch norm, which is unreliable at the
batch sizes that volumes allow. Here: instance norm, LeakyReLU, strided convolutions down, transposed convolutions
up, dropout at the two coarsest levels, optional deep supervision. Figures of both are in the README of the bundle
``hippocampus_mr_segmentation``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from vol3d.errors import ConfigError
from vol3d.networks.attention_gate import AttentionGate

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAK = 0.01


class ConvBlock(nn.Sequential):
    """Two 3x3x3 convolutions, each with instance norm and LeakyReLU; the first may stride.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        stride: Stride of the first convolution, the same along each axis.
        dropout: Probability that a channel is dropped after the block.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for block_in, block_stride in ((in_channels, stride), (out_channels, 1)):
            layers += [
                nn.Conv3d(block_in, out_channels, kernel_size=3, stride=block_stride, padding=1, bias=False),
                nn.GroupNorm(out_channels, out_channels),
                nn.LeakyReLU(LEAK, inplace=True),
            ]
        if dropout > 0:
            layers.append(nn.Dropout3d(dropout))
        super().__init__(*layers)


class UpBlock(nn.Module):
    """One step up: transposed convolution, gated skip connection, two convolutions.

    Args:
        skip_channels: Channels of the skip connection and of the result.
        gate_channels: Channels of the coarser level.
        dropout: Probability that a channel is dropped after the block.
    """

    def __init__(self, skip_channels: int, gate_channels: int, dropout: float) -> None:
        super().__init__()
        self.gate = AttentionGate(skip_channels, gate_channels, hidden_channels=max(skip_channels // 2, 1))
        self.up = nn.ConvTranspose3d(gate_channels, skip_channels, kernel_size=2, stride=2)
        self.block = ConvBlock(2 * skip_channels, skip_channels, dropout=dropout)

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return features on the grid of ``skip``."""
        merged: torch.Tensor = self.block(torch.cat([self.gate(skip, coarse), self.up(coarse)], dim=1))
        return merged


class AttentionUNet(nn.Module):
    """Attention U-Net from a volume to voxel-wise logits.

    Args:
        in_channels: Image channels.
        out_channels: Classes, background included.
        channels: Features per level, finest first; at least two levels, each halves the grid.
        dropout: Channel dropout of the two coarsest levels.
        deep_supervision: In training mode, add the logits of the coarser decoder levels to the output.

    Raises:
        ConfigError: If there are fewer than two levels or a channel count is not positive.

    Example:
        >>> net = AttentionUNet(1, 3, channels=(4, 8)).eval()
        >>> net(torch.zeros(1, 1, 7, 9, 5)).shape
        torch.Size([1, 3, 7, 9, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        dropout: float = 0.1,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if len(channels) < 2 or min(channels) < 1:
            raise ConfigError(f"channels must name at least 2 positive counts, got {tuple(channels)}; try (16, 32, 64)")
        last = len(channels) - 1
        rates = [dropout if level >= last - 1 else 0.0 for level in range(len(channels))]
        self.stride = 2**last
        self.deep_supervision = deep_supervision
        self.stem = ConvBlock(in_channels, channels[0], dropout=rates[0])
        self.downs = nn.ModuleList(
            ConvBlock(channels[i], channels[i + 1], stride=2, dropout=rates[i + 1]) for i in range(last)
        )
        self.ups = nn.ModuleList(UpBlock(channels[i], channels[i + 1], dropout=rates[i]) for i in reversed(range(last)))
        self.head = nn.Conv3d(channels[0], out_channels, kernel_size=1)
        # The two finest levels below full resolution carry most of what deep supervision gives.
        levels = [i for i in (1, 2) if i < last] if deep_supervision else []
        self.deep_heads = nn.ModuleDict({str(i): nn.Conv3d(channels[i], out_channels, kernel_size=1) for i in levels})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits on the grid of ``image``.

        Args:
            image: ``B C H W D``, any ``H W D`` of at least one voxel.

        Returns:
            ``B classes H W D``; with deep supervision in training mode ``B heads classes H W D``, finest head first
            and coarser heads interpolated to the full grid.
        """
        height, width, depth = image.shape[2], image.shape[3], image.shape[4]
        padding = [0, -depth % self.stride, 0, -width % self.stride, 0, -height % self.stride]
        if max(height, width, depth) <= self.stride:
            padding[1] += self.stride  # instance norm needs two voxels at the coarsest level
        # Repeating the border keeps instance norm's statistics, which a frame of zeros would shift.
        features = self.stem(F.pad(image, padding, mode="replicate"))
        skips = [features]
        for down in self.downs:
            features = down(features)
            skips.append(features)
        deep_logits: list[torch.Tensor] = []
        for number, up in enumerate(self.ups):
            features = up(features, skips[-2 - number])
            level = len(self.ups) - 1 - number
            for name, head in self.deep_heads.items():
                if self.training and name == str(level):
                    coarse = F.interpolate(head(features), scale_factor=2.0**level, mode="trilinear")
                    deep_logits.insert(0, coarse[..., :height, :width, :depth])
        logits: torch.Tensor = self.head(features)[..., :height, :width, :depth]
        if self.training and self.deep_supervision:
            return torch.stack([logits] + deep_logits, dim=1)  # noqa: RUF005 - TorchScript has no unpacking
        return logits
