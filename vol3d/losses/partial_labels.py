"""Dice and cross-entropy on references in which some organs were never contoured.

What lies in an organ that nobody contoured is marked as background. Punishing a network for finding it there would
teach it not to. Here background and the missing organs of a case count as one class: the sum of their probabilities is
what the cross-entropy sees where the reference says background, and the Dice term leaves those organs out.

Source: the marginal loss of G. Shi et al., "Marginal loss and exclusion loss for partially supervised multi-organ
segmentation", 2021, arXiv:2007.03868, equations 4 to 6. Differences: Dice is taken over the whole batch, without the
background, and in MONAI's form, so that on complete references the loss equals ``monai.losses.DiceCELoss``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from vol3d.errors import UsageError


class PartialLabels(NamedTuple):
    """References of a batch and what they hold.

    Args:
        labels: ``B 1 H W D``, class numbers, 0 where the background or a missing organ is.
        is_labeled: ``B classes``, bool: whether the case's reference marks the class. The background's entry is not
            looked at.
    """

    labels: torch.Tensor
    is_labeled: torch.Tensor


class PartialDiceCELoss(nn.Module):
    """The sum of batch Dice and cross-entropy with the missing organs of each case masked out.

    Args:
        smoothing: Added to both parts of the Dice fraction, as in MONAI.

    Example:
        >>> logits = torch.zeros(1, 3, 2, 2, 2)
        >>> logits[:, 2] = 40  # the network finds class 2 everywhere ...
        >>> nobody_looked = PartialLabels(torch.zeros(1, 1, 2, 2, 2), torch.tensor([[True, True, False]]))
        >>> round(float(PartialDiceCELoss()(logits, nobody_looked)), 3)  # ... where nobody looked for it
        0.0
    """

    def __init__(self, smoothing: float = 1e-5) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: torch.Tensor, target: PartialLabels) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            logits: ``B classes H W D``; channel 0 is the background.
            target: References of the same batch.

        Raises:
            UsageError: If the shapes do not belong together.
        """
        labels, is_labeled = target
        if labels.shape != (len(logits), 1, *logits.shape[2:]) or is_labeled.shape != logits.shape[:2]:
            raise UsageError(
                f"target must have labels B 1 H W D and is_labeled B classes for logits {tuple(logits.shape)}, got "
                f"{tuple(labels.shape)} and {tuple(is_labeled.shape)}; check the batch"
            )
        labels = labels.long()
        # Classes that a voxel marked as background may be: the background itself and the organs nobody contoured.
        is_open = ~is_labeled
        is_open[:, 0] = True
        log_probabilities = logits.log_softmax(dim=1)
        hidden = log_probabilities.masked_fill(~is_open[:, :, None, None, None], -torch.inf)
        is_outside = is_open.gather(1, labels.flatten(1)).view_as(labels)
        log_likelihood = torch.where(
            is_outside, hidden.logsumexp(dim=1, keepdim=True), log_probabilities.gather(1, labels)
        )
        return self._dice_loss(log_probabilities, labels, is_labeled) - log_likelihood.mean()

    def _dice_loss(
        self, log_probabilities: torch.Tensor, labels: torch.Tensor, is_labeled: torch.Tensor
    ) -> torch.Tensor:
        probabilities = log_probabilities[:, 1:].exp()
        classes = torch.arange(1, log_probabilities.shape[1], device=labels.device)
        is_class = labels == classes[:, None, None, None]
        counts = is_labeled[:, 1:].to(probabilities.dtype)
        space = (2, 3, 4)
        overlap = (torch.where(is_class, probabilities, 0).sum(space) * counts).sum(0)
        total = ((probabilities.sum(space) + is_class.sum(space)) * counts).sum(0)
        dice_loss = 1 - (2 * overlap + self.smoothing) / (total + self.smoothing)
        is_counted = (counts.sum(0) > 0).to(probabilities.dtype)
        return (dice_loss * is_counted).sum() / is_counted.sum().clamp(min=1)
