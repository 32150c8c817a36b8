"""Augmented batches from worker processes, through shared memory that is allocated once.

torch's ``DataLoader`` makes new shared memory for every tensor that a worker returns; for a small patch, finding and
clearing its pages takes as long as making the patch. Here workers write into a ring of slots, and only the number of a
slot is sent. Without a GPU this augments on every core; with one, `AugmentPrepareBatch` augments on the device and
needs no workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vol3d.data.ragged_batch import collate_ragged
from vol3d.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vol3d.transforms.batch_augment import BatchAugment

_PREFETCHED = 2  # batches per worker
Slot = dict[str, torch.Tensor]
Task = tuple[int, int, list[int]]


class AugmentedLoader:
    """Iterate over the augmented batches of one epoch; equal to `BatchAugment` on each batch, whatever the workers.

    A batch lies in shared memory and is overwritten after the next one has been asked for: copy what must stay.

    Args:
        dataset: Cases with image ``C H W D``, optionally label ``1 H W D``, ``case`` and the other entries that
            `BatchAugment` reads, as a `VolumeCacheDataset` gives them.
        augment: What to apply.
        sampler: Order of the cases.
        batch_size: Samples of a batch.
        num_workers: Processes, at least 1; they stay alive between epochs.
        drop_last: Leave out the last batch where it is smaller.
        epoch: The epoch to draw for; None until it is set, for example by an `AugmentEpochHandler`.

    Raises:
        ConfigError: If a number is not positive.

    Attributes:
        epoch: May be set before each iteration.
    """

    def __init__(
        self,
        dataset: Any,
        augment: BatchAugment,
        sampler: Sampler[int],
        batch_size: int,
        num_workers: int,
        drop_last: bool = False,
        epoch: int | None = None,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("num_workers", num_workers)):
            if number < 1:
                raise ConfigError(f"{name} must be at least 1, got {number}; without workers, call BatchAugment itself")
        self.epoch = epoch
        first = dataset[0]
        dtypes = {augment.image_key: torch.float32}
        if augment.label_key in first:
            dtypes[augment.label_key] = first[augment.label_key].dtype
        shapes = {key: (batch_size, first[key].shape[0], *augment.roi_size) for key in dtypes}
        # One slot more than batches in work: the batch that the caller holds.
        slots = [
            {key: _shared(torch.empty(shapes[key], dtype=dtype)) for key, dtype in dtypes.items()}
            for _ in range(_PREFETCHED * num_workers + 1)
        ]
        self._slots = slots
        self._tasks = _Tasks(sampler, batch_size, len(slots), drop_last)
        self._loader: DataLoader[Any] = DataLoader(
            _SlotWriter(dataset, augment, slots),
            batch_size=None,
            sampler=self._tasks,
            collate_fn=_unchanged,
            num_workers=num_workers,
            persistent_workers=True,
            prefetch_factor=_PREFETCHED,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield batches like those of ``BatchAugment.__call__``.

        Raises:
            ConfigError: If no epoch is known.
        """
        if self.epoch is None:
            raise ConfigError("epoch must be set before the first batch, got None; use AugmentEpochHandler")
        self._tasks.epoch = self.epoch
        for number, num_samples, others in self._loader:
            yield {**others, **{key: room[:num_samples] for key, room in self._slots[number].items()}}

    def __len__(self) -> int:
        return len(self._tasks)


class _Tasks(Sampler[Task]):
    """Slot, epoch and cases of each batch."""

    def __init__(self, sampler: Sampler[int], batch_size: int, num_slots: int, drop_last: bool) -> None:
        self.epoch = 0
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_slots = num_slots
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[Task]:
        cases = list(self.sampler)
        for number in range(self._num_batches(len(cases))):
            begin = number * self.batch_size
            yield number % self.num_slots, self.epoch, cases[begin : begin + self.batch_size]

    def __len__(self) -> int:
        return self._num_batches(len(self.sampler))  # type: ignore[arg-type] # torch's samplers have a length

    def _num_batches(self, num_cases: int) -> int:
        return num_cases // self.batch_size if self.drop_last else -(-num_cases // self.batch_size)


class _SlotWriter(Dataset[Any]):
    """What a worker does with a task: load, augment, and write into the slot."""

    def __init__(self, dataset: Any, augment: BatchAugment, slots: Sequence[Slot]) -> None:
        self.dataset = dataset
        self.augment = augment
        self.slots = slots

    def __getitem__(self, task: Task) -> tuple[int, int, dict[str, Any]]:
        number, epoch, cases = task
        slot = self.slots[number]
        batch = self.augment(collate_ragged([self.dataset[case] for case in cases]), epoch, out=slot)
        return number, len(cases), {key: column for key, column in batch.items() if key not in slot}


def _shared(room: torch.Tensor) -> torch.Tensor:
    shared: torch.Tensor = room.share_memory_()  # type: ignore[no-untyped-call] # as in torch
    return shared


def _unchanged(batch: Any) -> Any:
    return batch
