"""Averaging over mirror images against the same average written out."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from monai.inferers import SimpleInferer

from vol3d.errors import ConfigError
from vol3d.inference.flip_inferer import FlipInferer


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Conv3d(1, 3, 3, padding=1).requires_grad_(False)


def test_probabilities_are_the_mean_over_the_eight_mirror_images() -> None:
    net, image = network(), torch.randn(2, 1, 4, 5, 6)
    expected = torch.zeros(2, 3, 4, 5, 6)
    for choice in product((False, True), repeat=3):
        axes = [axis for axis, chosen in zip((2, 3, 4), choice, strict=True) if chosen]
        expected += net(image.flip(axes)).softmax(dim=1).flip(axes) / 8
    averaged = FlipInferer(SimpleInferer())(image, net).softmax(dim=1)
    torch.testing.assert_close(averaged, expected)


def test_a_mirrored_volume_gives_the_mirrored_result() -> None:
    net, image = network(), torch.randn(1, 1, 4, 5, 6)
    inferer = FlipInferer(SimpleInferer())
    for axis in (2, 3, 4):
        torch.testing.assert_close(inferer(image.flip(axis), net), inferer(image, net).flip(axis))


def test_only_the_chosen_axes_are_mirrored() -> None:
    net, image = network(), torch.randn(1, 1, 4, 5, 6)
    expected = (net(image).softmax(1) + net(image.flip(3)).softmax(1).flip(3)) / 2
    averaged = FlipInferer(SimpleInferer(), spatial_axes=[1])(image, net).softmax(dim=1)
    torch.testing.assert_close(averaged, expected)


def test_switched_off_it_passes_the_inferer_through() -> None:
    net, image = network(), torch.randn(1, 1, 4, 5, 6)
    assert FlipInferer(SimpleInferer(), enabled=False)(image, net).equal(net(image))


def test_a_network_that_is_certain_gives_finite_logits() -> None:
    def certain(image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image * 0 + 1e4, image * 0 - 1e4], dim=1)

    logits = FlipInferer(SimpleInferer())(torch.ones(1, 1, 2, 2, 2), certain)
    assert torch.isfinite(logits).all()
    assert (logits.argmax(dim=1) == 0).all()


def test_an_axis_that_is_not_spatial_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"spatial_axes must be among 0, 1, 2, got \[2, 3\]"):
        FlipInferer(SimpleInferer(), spatial_axes=[2, 3])
