"""MONAI's ``prepare_batch`` that augments: moves a batch to the device and runs `BatchAugment` there.

In a bundle's train config::

    train::prepare_batch:
      _target_: vol3d.transforms.augment_prepare_batch.AugmentPrepareBatch
      augment: { _target_: vol3d.transforms.batch_augment.BatchAugment, roi_size: "@roi_size", seed: "@seed" }
    train::handlers:
    - { _target_: vol3d.transforms.augment_epoch_handler.AugmentEpochHandler, follower: "@train::prepare_batch" }
    train::trainer:
      _target_: SupervisedTrainer
      prepare_batch: "@train::prepare_batch"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vol3d.errors import ConfigError
from vol3d.transforms.augment_draw import occurrences
from vol3d.transforms.augment_epoch_handler import AugmentEpochHandler
from vol3d.transforms.balanced_patches import ForegroundIndex
from vol3d.transforms.foreground_indexd import FOREGROUND_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from ignite.engine import Engine

    from vol3d.transforms.balanced_patches import BalancedPatchSampler
    from vol3d.transforms.batch_augment import BatchAugment


class AugmentPrepareBatch:
    """Callable ``(batchdata, device, non_blocking, **kwargs) -> (image, label)``.

    Args:
        augment: What to apply.
        epoch: The epoch to draw for. None waits for `attach`, for `AugmentEpochHandler` or for the attribute to be set:
            an epoch that nobody advances would repeat the same augmentation for ever.
        sampler: Draws where patches lie, for batches that bring the index of `ForegroundIndexd`; None leaves that to
            ``augment``.

    Attributes:
        epoch: May be set at any time.
    """

    def __init__(
        self, augment: BatchAugment, epoch: int | None = None, sampler: BalancedPatchSampler | None = None
    ) -> None:
        self.augment = augment
        self.epoch = epoch
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of an ignite engine."""
        AugmentEpochHandler(self).attach(engine)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return augmented image and label on the device; the label is None if the batch has none.

        Raises:
            ConfigError: If no epoch is known, or a sampler finds no foreground in the batch.
        """
        if self.epoch is None:
            raise ConfigError("epoch must be set before the first batch, got None; attach this to the trainer")
        moved = dict(batchdata)
        for key in (self.augment.image_key, self.augment.label_key):
            if key in moved:
                options = {"device": device, "non_blocking": non_blocking, **kwargs}
                volumes = moved[key]
                is_list = isinstance(volumes, (list, tuple))
                moved[key] = [volume.to(**options) for volume in volumes] if is_list else volumes.to(**options)
        if self.sampler is not None:
            moved["center_vox"] = self._centers(moved, self.sampler, self.epoch)
        result = self.augment(moved, self.epoch)
        return result[self.augment.image_key], result.get(self.augment.label_key)

    def _centers(self, batch: Mapping[str, Any], sampler: BalancedPatchSampler, epoch: int) -> list[list[int]]:
        if FOREGROUND_KEY not in batch:
            raise ConfigError(
                f"batch must hold {FOREGROUND_KEY!r} to sample patches, got {sorted(batch)}; add ForegroundIndexd to "
                "the preprocessing and collate with collate_ragged"
            )
        draws = batch.get("draw") or occurrences(batch["case"])
        centers = []
        for image, voxels, case, draw in zip(
            batch[self.augment.image_key], batch[FOREGROUND_KEY], batch["case"], draws, strict=True
        ):
            index = ForegroundIndex(tuple(image.shape[1:]), voxels)
            centers.append(sampler.centers(index, case, epoch, [int(draw)])[0].tolist())
        return centers
