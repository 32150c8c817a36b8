from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss

from vol3d.errors import UsageError
from vol3d.losses.partial_labels import PartialDiceCELoss, PartialLabels

CLASSES = 4


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of two cases."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, CLASSES, 5, 6, 7, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, CLASSES, (2, 1, 5, 6, 7), generator=generator)


def everything() -> torch.Tensor:
    return torch.ones(2, CLASSES, dtype=torch.bool)


def test_on_complete_references_it_is_dice_and_cross_entropy_of_monai() -> None:
    logits, labels = batch()
    expected = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)(logits, labels.double())
    torch.testing.assert_close(PartialDiceCELoss()(logits, PartialLabels(labels, everything())), expected)


def test_an_organ_missing_everywhere_counts_as_background_of_a_smaller_problem() -> None:
    logits, labels = batch()
    labels[labels == 3] = 0
    is_labeled = everything()
    is_labeled[:, 3] = False
    # Merging two classes of a softmax is a softmax over the sum of their exponentials.
    merged = torch.cat([torch.logsumexp(logits[:, [0, 3]], dim=1, keepdim=True), logits[:, 1:3]], dim=1)
    expected = PartialDiceCELoss()(merged, PartialLabels(labels, everything()[:, :3]))
    torch.testing.assert_close(PartialDiceCELoss()(logits, PartialLabels(labels, is_labeled)), expected)


def test_moving_probability_between_background_and_a_missing_organ_changes_nothing() -> None:
    logits, labels = batch()
    labels[0][labels[0] == 2] = 0
    is_labeled = everything()
    is_labeled[0, 2] = False
    probabilities = logits.softmax(dim=1)
    moved = probabilities.clone()
    moved[0, 0], moved[0, 2] = probabilities[0, 2], probabilities[0, 0]
    loss = PartialDiceCELoss()
    target = PartialLabels(labels, is_labeled)
    torch.testing.assert_close(loss(moved.log(), target), loss(logits, target))


def test_a_missing_organ_is_pushed_away_from_where_another_organ_is_marked() -> None:
    logits = torch.zeros(1, 3, 2, 2, 2, requires_grad=True)
    target = PartialLabels(torch.ones(1, 1, 2, 2, 2), torch.tensor([[True, True, False]]))
    PartialDiceCELoss()(logits, target).backward()
    assert logits.grad is not None
    assert bool((logits.grad[:, 2] > 0).all())
    assert bool((logits.grad[:, 1] < 0).all())


def test_a_label_of_an_organ_that_is_said_to_be_missing_counts_as_background() -> None:
    logits, labels = batch()
    is_labeled = everything()
    is_labeled[:, 1] = False
    cleared = torch.where(labels == 1, 0, labels)
    loss = PartialDiceCELoss()
    torch.testing.assert_close(
        loss(logits, PartialLabels(labels, is_labeled)), loss(logits, PartialLabels(cleared, is_labeled))
    )


def test_a_batch_without_any_contoured_organ_has_a_finite_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    target = PartialLabels(torch.zeros(1, 1, 4, 4, 4), torch.tensor([[True, False, False]]))
    value = PartialDiceCELoss()(logits, target)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize(
    ("labels_shape", "mask_shape"),
    [((2, 1, 5, 6, 6), (2, CLASSES)), ((2, 1, 5, 6, 7), (2, 3)), ((1, 1, 5, 6, 7), (2, CLASSES))],
)
def test_references_of_another_shape_are_refused(labels_shape: tuple[int, ...], mask_shape: tuple[int, ...]) -> None:
    logits, _ = batch()
    target = PartialLabels(torch.zeros(labels_shape), torch.ones(mask_shape, dtype=torch.bool))
    with pytest.raises(UsageError, match=r"target must have labels B 1 H W D .* for logits \(2, 4, 5, 6, 7\)"):
        PartialDiceCELoss()(logits, target)
