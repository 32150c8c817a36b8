"""Compiled networks compute what their originals do and share their weights; missing compilers are named."""

from __future__ import annotations

import shutil

import pytest
import torch

from vol3d.engines.compiled_network import compile_network
from vol3d.errors import ConfigError
from vol3d.networks.attention_unet import AttentionUNet


def test_switched_off_the_network_itself_comes_back() -> None:
    network = AttentionUNet(1, 2, channels=(2, 4))
    assert compile_network(network, enabled=False) is network


def test_without_a_compiler_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="got no 'no-such-compiler'; install g\\+\\+ or set CXX"):
        compile_network(torch.nn.Linear(1, 1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the modules that torch's compiler imports
def test_compiled_and_original_give_the_same_output_and_gradients() -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    torch.manual_seed(0)
    network = AttentionUNet(1, 2, channels=(4, 8), dropout=0.0)
    image = torch.rand(1, 1, 8, 8, 8)
    network(image).square().mean().backward()
    wanted = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad()
    compiled = compile_network(network)
    torch.testing.assert_close(compiled(image), network(image), rtol=1e-4, atol=1e-5)
    compiled(image).square().mean().backward()
    found = [parameter.grad for parameter in network.parameters()]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
