"""The memory tier of the case cache: packed cases in RAM or on a device, within a budget of bytes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import get_worker_info

from vol3d.errors import UsageError

if TYPE_CHECKING:
    from vol3d.data.packed_case import PackedCase


class MemoryTier:
    """Least-recently-used cases in compact form, in the memory of one device.

    A ``DataLoader`` worker has its own memory: it shares what was cached before it was forked, and keeps new cases
    only within its part of the budget, so that all workers together stay within it.

    Args:
        max_bytes: Budget; 0 keeps nothing.
        device: Where the arrays live.
    """

    def __init__(self, max_bytes: int, device: torch.device) -> None:
        self.max_bytes = max_bytes
        self.device = device
        self._start_empty()

    def _start_empty(self) -> None:
        self.num_bytes = 0
        self._cases: OrderedDict[str, PackedCase] = OrderedDict()
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._num_inherited_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cases behind: a spawned worker reads them from the disk tier."""
        return {"max_bytes": self.max_bytes, "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_empty()

    def get(self, key: str) -> PackedCase | None:
        """Return a case and mark it as used, or return None.

        Raises:
            UsageError: In a forked worker of a loader whose cases live on a GPU.
        """
        self._enter_process()
        with self._lock:
            case = self._cases.get(key)
            if case is not None:
                self._cases.move_to_end(key)
            return case

    def put(self, key: str, case: PackedCase) -> PackedCase:
        """Return the case on this tier's device; a copy is kept if it fits."""
        self._enter_process()
        budget = self._budget()
        if case.num_bytes > budget:
            return case if self.device.type == "cpu" else case.to(self.device)
        kept = case.to(self.device)
        with self._lock:
            replaced = self._cases.pop(key, None)
            self.num_bytes += kept.num_bytes - (replaced.num_bytes if replaced else 0)
            self._cases[key] = kept
            while self.num_bytes > budget:
                _, evicted = self._cases.popitem(last=False)
                self.num_bytes -= evicted.num_bytes
        return kept

    def clear(self) -> None:
        """Forget all cases."""
        self._start_empty()

    def __len__(self) -> int:
        return len(self._cases)

    def _budget(self) -> int:
        worker = get_worker_info()
        if worker is None:
            return self.max_bytes
        return max(self._num_inherited_bytes, self.max_bytes // worker.num_workers)

    def _enter_process(self) -> None:
        """After a fork: the lock may have been copied while another thread held it."""
        if self._process == os.getpid():
            return
        if self.device.type != "cpu":
            raise UsageError(
                f"device must be cpu in a DataLoader worker, got {self.device}; "
                "set num_workers=0 of the loader, the cases are on the device already"
            )
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._num_inherited_bytes = self.num_bytes
