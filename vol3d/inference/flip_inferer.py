"""Test-time augmentation by mirroring, around any inferer."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from monai.inferers import Inferer

from vol3d.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class FlipInferer(Inferer):
    """Average class probabilities over the mirror images of a volume, the volume itself among them.

    Args:
        inferer: Inferer for one volume; its output is logits ``B C H W D``.
        spatial_axes: Axes of ``H W D`` (0, 1, 2) that are mirrored, in all combinations; only those that training
            mirrored too.
        enabled: False passes ``inferer`` through unchanged.
    """

    def __init__(self, inferer: Inferer, spatial_axes: Sequence[int] = (0, 1, 2), enabled: bool = True) -> None:
        super().__init__()
        if not set(spatial_axes) <= {0, 1, 2}:
            raise ConfigError(f"spatial_axes must be among 0, 1, 2, got {list(spatial_axes)}; they count H W D")
        axes = [axis + 2 for axis in spatial_axes]
        self.flips = [flips for count in range(len(axes) + 1) for flips in combinations(axes, count)]
        self.inferer = inferer
        self.enabled = enabled

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return logits for ``inputs`` (``B C H W D``).

        Averaged logits are logarithms of the mean probabilities, so that a softmax gives those back.
        """
        if not self.enabled:
            plain: torch.Tensor = self.inferer(inputs, network, *args, **kwargs)
            return plain

        def mirrored(axes: tuple[int, ...]) -> torch.Tensor:
            logits: torch.Tensor = self.inferer(inputs.flip(axes), network, *args, **kwargs)
            return torch.softmax(logits.float(), dim=1).flip(axes)

        total = mirrored(self.flips[0])
        for axes in self.flips[1:]:
            total += mirrored(axes)
        return (total / len(self.flips)).clamp_min(torch.finfo(torch.float32).tiny).log()
