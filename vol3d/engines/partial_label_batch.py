"""MONAI's ``prepare_batch`` for references in which some organs were never contoured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vol3d.data.contoured import LABELED_KEY
from vol3d.errors import ConfigError
from vol3d.losses.partial_labels import PartialLabels
from vol3d.transforms.augment_prepare_batch import AugmentPrepareBatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vol3d.transforms.balanced_patches import BalancedPatchSampler
    from vol3d.transforms.batch_augment import BatchAugment


class PartialLabelPrepareBatch(AugmentPrepareBatch):
    """Augments like its parent and hands ``PartialDiceCELoss`` the labels with what each reference holds.

    Args:
        augment: What to apply.
        num_classes: Channels of the network's output, background included.
        epoch: See `AugmentPrepareBatch`.
        sampler: See `AugmentPrepareBatch`.
    """

    def __init__(
        self,
        augment: BatchAugment,
        num_classes: int,
        epoch: int | None = None,
        sampler: BalancedPatchSampler | None = None,
    ) -> None:
        super().__init__(augment, epoch, sampler)
        self.num_classes = num_classes

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Any]:
        """Return the augmented image and its ``PartialLabels`` on the device.

        Raises:
            ConfigError: If no epoch is known, or the batch has no labels or does not say what they hold.
        """
        image, labels = super().__call__(batchdata, device, non_blocking, **kwargs)
        if labels is None or LABELED_KEY not in batchdata:
            raise ConfigError(
                f"batch must hold labels and {LABELED_KEY!r}, got {sorted(batchdata)}; list cases with "
                "read_partial_split"
            )
        is_labeled = torch.zeros(len(image), self.num_classes, dtype=torch.bool)
        for row, values in zip(is_labeled, batchdata[LABELED_KEY], strict=True):
            row[[value for value in values if value < self.num_classes]] = True
        return image, PartialLabels(labels, is_labeled.to(image.device, non_blocking=non_blocking))
