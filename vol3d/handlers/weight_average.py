"""Exponential moving average of a network's weights during training.

torch's ``AveragedModel`` keeps its counter on the device and reads it at every step, which stalls a GPU, and its decay
has no warm-up, so that short runs would average in the random start. Here the decay is
``min(decay, (1 + steps) / (10 + steps))``, as in TensorFlow's ``ExponentialMovingAverage``.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from ignite.engine import Events
from torch import nn


class WeightAverage:
    """Keep the moving average of ``network`` in ``self.network``, updated after each training step.

    Args:
        network: The network that the optimizer changes; unwrapped, not its distributed wrapper.
        decay: Weight of the past once warmed up.

    Example:
        >>> trained = nn.Linear(1, 1)
        >>> average = WeightAverage(trained, decay=0.999)
        >>> average.network(torch.ones(1, 1)).equal(trained(torch.ones(1, 1)))
        True
    """

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        self.source = network
        self.decay = decay
        self.num_steps = 0
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def attach(self, engine: Any) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Any = None) -> None:  # noqa: ARG002 - ignite passes its engine
        """Move the average towards the network's present weights; integer buffers are copied."""
        self.num_steps += 1
        decay = min(self.decay, (1 + self.num_steps) / (10 + self.num_steps))
        averages, sources = [], []
        for average, source in zip(self.network.state_dict().values(), self.source.state_dict().values(), strict=True):
            if average.is_floating_point():
                averages.append(average)
                sources.append(source)
            else:
                average.copy_(source)
        torch._foreach_lerp_(averages, sources, 1.0 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of steps."""
        return {"network": self.network.state_dict(), "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.network.load_state_dict(state["network"])
        self.num_steps = int(state["num_steps"])
