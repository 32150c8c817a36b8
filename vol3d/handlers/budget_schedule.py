"""A learning rate that is spent when the budget is: so many epochs, or so many minutes, whichever ends first.

On a machine whose speed is not known beforehand, a schedule in steps either stops early or never reaches zero. With
minutes, the rate follows the wall time, and training ends with the epoch in which they run out.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from ignite.engine import Events
from torch import distributed

from vol3d.errors import ConfigError

if TYPE_CHECKING:
    from torch.optim import Optimizer


class BudgetSchedule:
    """Linear warm-up, then a cosine from the optimizer's own learning rate to zero at the end of the budget.

    The part of the epochs that is done is known at every step, the part of the minutes at the end of every epoch. With
    minutes, two runs therefore differ as their speed does; without, they are the same.

    Args:
        optimizer: Its groups' learning rates are set before every step.
        warmup_steps: Steps until the full rate.
        max_minutes: Wall time of the whole run, validation included and continued when training is resumed; None
            counts epochs alone.

    Raises:
        ConfigError: If the minutes are not positive.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 0, max_minutes: float | None = None) -> None:
        if max_minutes is not None and max_minutes <= 0:
            raise ConfigError(f"max_minutes must be positive, got {max_minutes}; or leave it out")
        self.optimizer = optimizer
        self.warmup_steps = warmup_steps
        self.max_minutes = max_minutes
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.spent_s = 0.0
        self._past_s = 0.0
        self._started: float | None = None

    def attach(self, engine: Any) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._set_rate)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._count)

    def rate(self, step: int, num_steps: int) -> float:
        """Return the factor of the learning rate at a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(num_steps - self.warmup_steps, 1)
        if self.max_minutes is not None:
            progress = max(progress, self.spent_s / (60 * self.max_minutes))
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def state_dict(self) -> dict[str, Any]:
        """Return the time spent, and the rates before scheduling: those of a resumed optimizer are scheduled ones."""
        return {"spent_s": self._elapsed_s(), "base_rates": self.base_rates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.spent_s = self._past_s = float(state["spent_s"])
        self.base_rates = list(state["base_rates"])

    def _start(self, _engine: Any) -> None:
        self._started = time.monotonic()

    def _set_rate(self, engine: Any) -> None:
        factor = self.rate(engine.state.iteration - 1, engine.state.max_epochs * engine.state.epoch_length)
        for group, base_rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base_rate * factor

    def _elapsed_s(self) -> float:
        return self._past_s + (time.monotonic() - self._started if self._started is not None else 0.0)

    def _count(self, engine: Any) -> None:
        self.spent_s = _of_first_rank(self._elapsed_s())
        if self.max_minutes is not None and self.spent_s >= 60 * self.max_minutes:
            engine.terminate()


def _of_first_rank(seconds: float) -> float:
    # All processes must take the same rate and stop after the same epoch, whatever their clocks say.
    if not distributed.is_initialized():
        return seconds
    shared: list[Any] = [seconds]
    distributed.broadcast_object_list(shared)
    return float(shared[0])
