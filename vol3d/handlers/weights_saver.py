"""The result of a training run: one state dict that loads with ``weights_only``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Events

from vol3d.data.atomic_write import atomic_path

if TYPE_CHECKING:
    from torch import nn


class WeightsSaver:
    """Write a network's weights when training has completed.

    Args:
        path: File for ``torch.save``, replaced atomically.
        network: Network whose state dict is saved, on the CPU, as plain contiguous tensors.
        rank: Only rank 0 writes.
    """

    def __init__(self, path: str, network: nn.Module, rank: int = 0) -> None:
        self.path = path
        self.network = network
        self.rank = rank

    def attach(self, engine: Any) -> None:
        """Register with a trainer."""
        if self.rank == 0:
            engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Any = None) -> None:  # noqa: ARG002 - ignite passes its engine
        """Write the file."""
        # Cloned, because a view would drag the storage it shares into the file.
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in self.network.state_dict().items()}
        with atomic_path(self.path) as aside:
            torch.save(weights, aside)
