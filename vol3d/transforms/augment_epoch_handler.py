"""Tells an augmentation which epoch it is, from an ignite engine's own count.

The count is part of the engine's state, so a training that resumes from a checkpoint draws what it would have drawn.
"""

from __future__ import annotations

from typing import Protocol

from ignite.engine import Engine, Events


class HasEpoch(Protocol):
    """Anything whose ``epoch`` can be set: `AugmentPrepareBatch`, `BatchAugmentd`."""

    epoch: int | None


class AugmentEpochHandler:
    """Handler that sets the ``epoch`` of its follower whenever an epoch starts, before the first batch is loaded.

    Args:
        follower: Whose epoch to set.
    """

    def __init__(self, follower: HasEpoch) -> None:
        self.follower = follower

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of an engine, counted from 1."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the epoch of the follower."""
        self.follower.epoch = int(engine.state.epoch)
