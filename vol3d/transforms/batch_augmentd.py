"""`BatchAugment` for one sample at a time, as a MONAI dictionary transform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from monai.transforms import MapTransform
from monai.transforms.traits import RandomizableTrait

from vol3d.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vol3d.transforms.batch_augment import BatchAugment

_PER_SAMPLE = ("case", "draw", "center_vox", "spacing_mm")


class BatchAugmentd(RandomizableTrait, MapTransform):
    """Augments one sample of a ``Compose``, with the result it would have in a batch of `BatchAugment`.

    The sample holds image ``C H W D``, optionally label ``1 H W D``, ``case``, and optionally ``draw``, ``center_vox``
    and ``spacing_mm``. Results are plain tensors: after a rotation the affine of a ``MetaTensor`` would be untrue.

    Args:
        augment: What to apply.
        epoch: The epoch to draw for, or None until it is set.
    """

    def __init__(self, augment: BatchAugment, epoch: int | None = None) -> None:
        super().__init__([augment.image_key, augment.label_key], allow_missing_keys=True)
        self.augment = augment
        # Shared memory: workers of a loader that are already running must see the epoch change too.
        self._epoch = torch.full((), -1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call] # as in torch
        self.epoch = epoch

    @property
    def epoch(self) -> int | None:
        """The epoch to draw for; set it before the loader's iterator is made. All processes see it."""
        number = int(self._epoch)
        return None if number < 0 else number

    @epoch.setter
    def epoch(self, number: int | None) -> None:
        if number is not None and number < 0:
            raise ConfigError(f"epoch must not be negative, got {number}; count from 0 or 1")
        self._epoch.fill_(-1 if number is None else number)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sample with image and label augmented.

        Raises:
            ConfigError: If no epoch is known.
        """
        if self.epoch is None:
            raise ConfigError("epoch must be set before the first sample, got None; use AugmentEpochHandler")
        keys = (*self.key_iterator(data), *(key for key in _PER_SAMPLE if key in data))
        result = self.augment({key: [data[key]] for key in keys}, self.epoch)
        return {**data, **{key: result[key][0] for key in self.key_iterator(data)}}
