"""AttentionUNet: any size in, the same size out, and every weight takes part."""

from __future__ import annotations

import warnings

import pytest
import torch

from vol3d.errors import ConfigError
from vol3d.networks.attention_unet import AttentionUNet

SIZES = [(1, 1, 1), (1, 9, 17), (8, 8, 8), (7, 9, 5), (16, 8, 24), (13, 1, 31)]


def small_net(**options: object) -> AttentionUNet:
    torch.manual_seed(0)
    return AttentionUNet(1, 3, channels=(2, 4, 6, 8), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_output_has_the_grid_of_the_input(size: tuple[int, int, int], training: bool) -> None:
    logits = small_net().train(training)(torch.randn(1, 1, *size))
    assert logits.shape == (1, 3, *size)
    assert torch.isfinite(logits).all()


def test_gradient_reaches_every_parameter() -> None:
    net = small_net(deep_supervision=True)
    net(torch.randn(1, 1, 16, 16, 16)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        # A convolution's bias before instance norm has no effect; gates add theirs inside one.
        assert parameter.grad.abs().sum() > 0 or name.endswith("gate_projection.bias"), name


def test_deep_supervision_adds_heads_in_training_only() -> None:
    net = small_net(deep_supervision=True)
    image = torch.randn(2, 1, 12, 16, 9)
    assert net(image).shape == (2, 3, 3, 12, 16, 9)
    assert net.eval()(image).shape == (2, 3, 12, 16, 9)


def test_the_first_head_of_deep_supervision_is_the_output_itself() -> None:
    net = small_net(deep_supervision=True, dropout=0.0)
    image = torch.randn(1, 1, 16, 8, 8)
    torch.testing.assert_close(net(image)[:, 0], net.eval()(image))


def test_deep_supervision_of_two_levels_has_one_head() -> None:
    net = AttentionUNet(1, 2, channels=(2, 4), deep_supervision=True)
    assert net(torch.randn(1, 1, 4, 4, 4)).shape == (1, 1, 2, 4, 4, 4)


def test_padding_a_volume_by_its_border_is_what_the_network_does_itself() -> None:
    net = small_net().eval()
    image = torch.randn(1, 1, 13, 16, 8)
    padded = torch.nn.functional.pad(image, [0, 0, 0, 0, 0, 3], mode="replicate")
    torch.testing.assert_close(net(image), net(padded)[:, :, :13])


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    net = small_net().eval()
    images = torch.randn(3, 1, 8, 16, 8)
    torch.testing.assert_close(net(images)[[2, 0, 1]], net(images[[2, 0, 1]]))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_torchscript_gives_the_same_logits_at_sizes_it_was_not_made_at(deep_supervision: bool) -> None:
    net = small_net(deep_supervision=deep_supervision).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated, and still what MONAI exports
        scripted = torch.jit.script(net)
    for size in ((9, 8, 16), (16, 3, 5)):
        image = torch.randn(1, 1, *size)
        torch.testing.assert_close(scripted(image), net(image))


def test_dropout_acts_at_the_two_coarsest_levels_only() -> None:
    net = small_net(dropout=0.3)
    dropped = [name for name, module in net.named_modules() if isinstance(module, torch.nn.Dropout3d)]
    assert [name.split(".")[:2] for name in dropped] == [["downs", "1"], ["downs", "2"], ["ups", "0"]]
    assert not any(isinstance(module, torch.nn.Dropout3d) for module in small_net(dropout=0.0).modules())


@pytest.mark.parametrize("channels", [(), (8,), (8, 0)])
def test_too_few_levels_are_refused_with_their_value(channels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="channels must name at least 2") as caught:
        AttentionUNet(1, 2, channels=channels)
    assert str(channels) in str(caught.value)
