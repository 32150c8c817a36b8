"""The order of training cases as a pure function of seed and epoch.

torch's ``RandomSampler`` draws from a generator whose state depends on all that ran before, and its
``DistributedSampler`` repeats cases to fill the last round. Here an epoch can be replayed alone, entered in its
middle, and divided between processes without repetition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Sampler

from vol3d.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sized


class EpochSampler(Sampler[int]):
    """Shuffle cases from (seed, epoch) and hand each process its share.

    Args:
        data: The data set, or anything else whose length is the number of cases.
        seed: Same seed, same orders.
        rank: Number of this process.
        world_size: Number of processes; each gets ``len(data) // world_size`` cases, so that all take as many steps.

    Raises:
        ConfigError: If a process would get no case.

    Example:
        >>> first, second = (EpochSampler(range(5), seed=7, rank=rank, world_size=2) for rank in (0, 1))
        >>> set(first) & set(second)
        set()
    """

    def __init__(self, data: Sized, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.num_cases = len(data)
        if self.num_cases < world_size:
            raise ConfigError(f"data must hold a case per process, got {self.num_cases} for {world_size} processes")
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._epoch = 0
        self._skip = 0

    def set_epoch(self, epoch: int, skip_cases: int = 0) -> None:
        """Choose the epoch of the next iteration, without this process's first ``skip_cases`` cases (once)."""
        self._epoch = epoch
        self._skip = skip_cases

    def __iter__(self) -> Iterator[int]:
        """Yield indices of cases."""
        order = np.random.default_rng([self.seed, self._epoch]).permutation(self.num_cases)
        own = order[self.rank :: self.world_size][: len(self)]
        skip, self._skip = self._skip, 0
        return iter(own[skip:].tolist())

    def __len__(self) -> int:
        return self.num_cases // self.world_size

    def state_dict(self) -> dict[str, Any]:
        """Return what must not change between a run and its continuation."""
        return {"seed": self.seed, "num_cases": self.num_cases, "world_size": self.world_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse to continue a run whose cases, seed or number of processes were others.

        Raises:
            ConfigError: If ``state`` differs from ``state_dict()``.
        """
        if state != self.state_dict():
            raise ConfigError(f"a resumed run must keep its data and seed, got {self.state_dict()} after {state}")
