"""Flips and ensembles: mean probabilities by hand, and inside the stream."""

from __future__ import annotations

import pytest
import torch

from vol3d.errors import UsageError
from vol3d.inference.ensemble import Ensemble
from vol3d.inference.sliding_window import StreamingSlidingWindowInferer


def ramp(windows: torch.Tensor) -> torch.Tensor:
    """Not equivariant under flips: adds the position along each axis."""
    h, w, d = (torch.linspace(0, 1, n) for n in windows.shape[2:])
    position = h[:, None, None] + 2 * w[:, None] + 4 * d
    return torch.cat([windows + position, windows * position], dim=1)


def test_flips_are_undone_before_the_mean() -> None:
    windows = torch.randn(2, 1, 3, 4, 5)
    expected = sum(
        ramp(windows.flip(axes)).softmax(1).flip(axes)
        for axes in ([], [2], [4], [2, 4])  # all flips of H and D
    )
    ensemble = Ensemble([ramp], flip_axes="HD")
    assert ensemble.num_passes == 4
    torch.testing.assert_close(ensemble(windows), expected / 4)


def test_members_vote_with_probabilities_not_logits() -> None:
    sure = torch.tensor([50.0, 0.0]).reshape(1, 2, 1, 1, 1)
    other = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1, 1)
    ensemble = Ensemble([lambda _: sure, lambda _: other, lambda _: other])
    probability = torch.sigmoid(torch.tensor(1.0))
    assert float(ensemble(torch.zeros(1, 1, 1, 1, 1))[0, 1]) == pytest.approx(float(2 * probability / 3))


@pytest.mark.parametrize(("channels", "decision"), [(1, "argmax"), (3, "threshold")])
def test_masks_become_sigmoids(channels: int, decision: str) -> None:
    windows = torch.randn(1, channels, 2, 2, 2)
    torch.testing.assert_close(Ensemble([lambda w: w], "HWD", decision)(windows), windows.sigmoid())


def test_an_ensemble_streams_probabilities() -> None:
    volume = torch.randn(1, 9, 9, 9)
    inferer = StreamingSlidingWindowInferer(4, 2, 0.5, is_probability=True, skip=lambda _: lambda box: box[0][0] < 4)
    for slab in inferer.stream(volume, Ensemble([ramp, ramp], "W")):
        part = tuple(slice(o[0] - b[0], o[1] - b[0]) for o, b in zip(slab.owned, slab.box, strict=True))
        owned = slab.values[(slice(None), *part)]
        torch.testing.assert_close(owned.sum(0), torch.ones(owned.shape[1:]))


def test_the_input_is_left_as_it_was() -> None:
    windows = torch.randn(1, 2, 3, 3, 3)
    before = windows.clone()
    Ensemble([lambda w: w, lambda w: w], "HWD")(windows)
    assert torch.equal(windows, before)


def test_empty_ensembles_and_unknown_axes_are_refused() -> None:
    with pytest.raises(UsageError, match="networks must hold at least one network, got none"):
        Ensemble([])
    with pytest.raises(UsageError, match="flip_axes must be letters of HWD, got 'XZ'"):
        Ensemble([ramp], flip_axes="ZX")
