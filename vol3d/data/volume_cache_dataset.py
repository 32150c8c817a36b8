"""A data set that computes its deterministic transforms once, for every run on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from monai.data import Dataset

from vol3d.data.byte_size import parse_bytes
from vol3d.data.cache_fill import fill_cache
from vol3d.data.volume_cache import CacheOptions, VolumeCache
from vol3d.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

_REPLACED = {"cache_num": "ram_bytes", "cache_rate": "ram_bytes", "copy_cache": "nothing: items are always copies"}


class VolumeCacheDataset(Dataset):
    """Drop-in for ``monai.data.CacheDataset`` and ``PersistentDataset`` whose cache is bounded and never stale.

    Everything before the first random transform comes from the cache (see ``volume_cache``); the rest runs for every
    access, on memory of its own. Works with ``DataLoader`` workers, forked or spawned, and ``ThreadDataLoader``. In a
    config::

        dataset:
          _target_: vol3d.data.volume_cache_dataset.VolumeCacheDataset
          data: "@datalist"
          transform: "@preprocessing"
          ram_bytes: 1GiB

    Args:
        data: Input items, one per case.
        transform: A MONAI ``Compose``, one transform, or a list of them.
        num_workers: Threads that fill the cache; None takes every core that this process may use.
        progress: Show a bar while filling takes longer than two seconds, on a terminal only.
        fill_first: Compute missing cases now, so that a broken file shows before training; False computes each case
            when it is first asked for.
        fill_bytes: Bound of the memory for cases in work while filling.
        cache_options: See :class:`~vol3d.data.volume_cache.CacheOptions`.

    Raises:
        ConfigError: If an option is unknown, or a transform cannot be fingerprinted.
        VolumeReadError: If a case cannot be computed.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Any = None,
        num_workers: int | None = None,
        progress: bool = True,
        fill_first: bool = True,
        fill_bytes: int | str = "4GiB",
        **cache_options: Unpack[CacheOptions],
    ) -> None:
        for name, value in cache_options.items():
            if name in _REPLACED:
                advice = _REPLACED[name]
                raise ConfigError(f"{name} must not be given to VolumeCacheDataset, got {value!r}; use {advice}")
        self.cache = VolumeCache(transform, cache_options)
        super().__init__(data, self.cache.compose)
        self.num_workers = num_workers
        self.progress = progress
        self.fill_first = fill_first
        self.fill_bytes = parse_bytes(fill_bytes, "fill_bytes")
        self.set_data(data)

    def set_data(self, data: Sequence[Any]) -> None:
        """Replace the input items; cases that are cached already stay so."""
        self.data = data
        if self.fill_first and self.cache.num_deterministic:
            num_workers = self.num_workers or _usable_cores()
            fill_cache(self.cache, data, num_workers, self.fill_bytes, progress=self.progress)

    def _transform(self, index: int) -> Any:
        return self.cache.apply_random(self.cache.get(self.data[index]))


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
