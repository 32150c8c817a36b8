"""Mixed precision that works on the CPU too, and the question whether it pays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.inferers import SimpleInferer

from vol3d.engines import autocast_inferer
from vol3d.engines.autocast_inferer import AutocastInferer, has_fast_bfloat16


class TypeRecorder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 2, 1)
        self.seen: list[torch.dtype] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.conv(image)
        self.seen.append(result.dtype)
        return result


@pytest.mark.parametrize(("enabled", "inside"), [(True, torch.bfloat16), (False, torch.float32)])
def test_network_computes_in_the_chosen_type_and_float32_comes_back(enabled: bool, inside: torch.dtype) -> None:
    network = TypeRecorder()
    output = AutocastInferer(SimpleInferer(), enabled)(torch.rand(1, 1, 2, 2, 2), network)
    assert network.seen == [inside]
    assert output.dtype == torch.float32


def test_disabled_gives_exactly_what_the_inferer_gives() -> None:
    network, image = TypeRecorder(), torch.rand(1, 1, 4, 4, 4)
    assert AutocastInferer(SimpleInferer(), enabled=False)(image, network).equal(network(image))


def test_gradients_pass_in_float32() -> None:
    network = TypeRecorder()
    AutocastInferer(SimpleInferer())(torch.rand(1, 1, 2, 2, 2), network).sum().backward()
    assert network.conv.weight.grad is not None
    assert network.conv.weight.grad.dtype == torch.float32


def test_extra_arguments_reach_the_network() -> None:
    def network(image: torch.Tensor, factor: float, *, shift: float) -> torch.Tensor:
        return image * factor + shift

    output = AutocastInferer(SimpleInferer(), enabled=False)(torch.ones(1), network, 3.0, shift=1.0)
    assert output.item() == 4.0


@pytest.mark.parametrize(
    ("capabilities", "compiled", "fast"),
    [
        ({"amx_bf16": True}, False, True),
        ({"amx_bf16": True}, True, True),
        ({"avx512_bf16": True}, False, False),
        ({"avx512_bf16": True}, True, True),
        ({"avx2": True}, True, False),
    ],
)
def test_a_cpu_is_fast_in_bfloat16_with_its_instructions_only(
    capabilities: dict[str, Any], compiled: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autocast_inferer.torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_fast_bfloat16("cpu", compiled) is fast


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_cuda_device_is_fast_in_bfloat16_from_ampere_on(
    capability: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autocast_inferer.torch.cuda, "get_device_capability", lambda _: capability)
    assert has_fast_bfloat16(torch.device("cuda", 0)) is fast


def test_other_devices_are_not_trusted_to_be_fast() -> None:
    assert has_fast_bfloat16("meta") is False
