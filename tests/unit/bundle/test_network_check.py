"""Networks of every kind against their declaration: names, several ports, dictionaries, tuples, open sizes."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from vol3d.bundle.declared_network import DeclaredNetwork, FreeSizes, Port, declared_networks, make_inputs, run_network
from vol3d.bundle.network_check import check_network
from vol3d.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator


class TwoInputs(nn.Module):
    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"field": torch.cat([moving, fixed, fixed], dim=1), "score": fixed.mean(dim=(2, 3, 4))}


class Pyramid(nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return [image, image[..., ::2, ::2, ::2]], image.flatten(2).mean(dim=2)


class Broken(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 3, *image.shape[2:]), torch.nan, dtype=torch.float64)[..., 1:]


class OnlyInEvaluation(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.repeat(1, 3, 1, 1, 1) if not self.training else image


@pytest.fixture(autouse=True)
def networks() -> Iterator[None]:
    module = ModuleType("networks_under_test")
    for cls in (TwoInputs, Pyramid, Broken, OnlyInEvaluation):
        setattr(module, cls.__name__, cls)
    sys.modules[module.__name__] = module
    yield
    del sys.modules[module.__name__]


def port(channels: int, shape: list[int | str], dtype: str = "float32", value_range: Any = ()) -> dict[str, Any]:
    return {"num_channels": channels, "spatial_shape": shape, "dtype": dtype, "value_range": list(value_range)}


def declare(maker: Any, target: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    maker.inference(network_def={"_target_": f"networks_under_test.{target}"})
    return maker.metadata(lambda data: data.update(network_data_format={"inputs": inputs, "outputs": outputs}))


def test_a_correct_bundle_has_no_finding(maker: Any) -> None:
    assert check_network(maker.layout) == []


def test_several_inputs_under_any_names_and_a_dictionary_of_outputs(maker: Any) -> None:
    inputs = {"fixed": port(1, [4, 5, 6]), "moving": port(1, [4, 5, 6])}
    assert check_network(declare(maker, "TwoInputs", inputs, {"score": port(1, []), "field": port(3, [4, 5, 6])})) == []


def test_an_output_that_is_not_declared_is_found(maker: Any) -> None:
    inputs = {"moving": port(1, [4, 4, 4]), "fixed": port(1, [4, 4, 4])}
    (finding,) = check_network(declare(maker, "TwoInputs", inputs, {"field": port(3, [4, 4, 4])}))
    assert "outputs of network_def must be ['field'], got ['field', 'score']" in finding


def test_a_tuple_with_a_pyramid_is_checked_in_the_declared_order(maker: Any) -> None:
    outputs = {"levels": port(1, [8, 8, 8]), "mean": port(1, [])}
    assert check_network(declare(maker, "Pyramid", {"x": port(1, [8, 8, 8])}, outputs)) == []
    (finding,) = check_network(declare(maker, "Pyramid", {"x": port(1, [8, 8, 8])}, {"levels": port(1, [8, 8, 8])}))
    assert "must be ['levels'], got 2 values" in finding


def test_channels_shape_type_and_finite_values_are_checked(maker: Any) -> None:
    findings = check_network(declare(maker, "Broken", {"image": port(1, [4, 4, 4])}, {"pred": port(3, [4, 4, 4])}))
    assert findings == [
        "output pred of network_def must have spatial shape (4, 4, 4), got (4, 4, 3)",
        "output pred of network_def must have type float32, got float64",
        "output pred of network_def must be finite, got 144 voxels that are not",
    ]
    (*_, channels) = check_network(
        declare(maker, "Pyramid", {"x": port(2, [4])}, {"a": port(2, [4]), "b": port(9, [])})
    )
    assert "must have 9 channels, got shape (1, 2)" in channels or "must run" in channels


def test_networks_are_checked_in_evaluation_mode(maker: Any) -> None:
    layout = declare(maker, "OnlyInEvaluation", {"image": port(1, [4, 4, 4])}, {"pred": port(3, [4, 4, 4])})
    assert check_network(layout) == []


def test_open_sizes_are_tried_at_more_than_one_size(maker: Any) -> None:
    inputs, outputs = {"image": port(1, ["*", "8*n", "2**p"])}, {"pred": port(3, ["*", "8*n", "2**p"])}
    assert check_network(declare(maker, "OnlyInEvaluation", inputs, outputs)) == []
    fixed = {"pred": port(3, [33, 8, 2])}  # right at the first size, wrong at the second
    (finding,) = check_network(declare(maker, "OnlyInEvaluation", inputs, fixed))
    assert "must have spatial shape (33, 8, 2), got (48, 16, 2)" in finding


def test_further_networks_are_checked_by_their_own_definition(maker: Any) -> None:
    def add(data: dict[str, Any]) -> None:
        data["critic_data_format"] = {"inputs": {"x": port(1, [4, 4, 4])}, "outputs": {"y": port(3, [4, 4, 4])}}

    (finding,) = check_network(maker.metadata(add))
    assert "configs must define critic_def" in finding
    maker.inference(critic_def={"_target_": "networks_under_test.OnlyInEvaluation"})
    assert check_network(maker.layout) == []


def test_a_network_that_cannot_take_its_input_is_a_finding(maker: Any) -> None:
    layout = declare(maker, "TwoInputs", {"image": port(1, [4, 4, 4])}, {"pred": port(3, [4, 4, 4])})
    (finding,) = check_network(layout)
    assert finding.startswith("network_def must run on its declared inputs, got TypeError")
    assert "\n" not in finding


def test_metadata_without_networks_is_a_finding(maker: Any) -> None:
    (finding,) = check_network(maker.metadata(lambda data: data.pop("network_data_format")))
    assert "must declare network_data_format, got none" in finding


@pytest.mark.parametrize(
    ("size", "expected"), [(7, 7), ("*", 40), ("16*n", 48), ("2**p*n", 12), ("8 + n - p", 9), ("2**(p + n)", 32)]
)
def test_sizes_follow_monais_expressions(size: int | str, expected: int) -> None:
    assert Port(1, (size,), "float32").shape(FreeSizes(n=3, p=2, any_size=40)) == (1, expected)


@pytest.mark.parametrize("size", ["n.__class__", "m", "8//n", "8*", "__import__('os')", "1.5*n"])
def test_other_expressions_are_refused(size: str) -> None:
    with pytest.raises(BundleError, match="arithmetic in n and p"):
        Port(1, (size,), "float32").shape(FreeSizes())


def test_inputs_repeat_with_their_seed_and_keep_type_and_range() -> None:
    ports = {"scan": Port(2, (5, 6), "float32", (-3.0, 4.0)), "step": Port(1, (), "int64", (2, 4))}
    declared = DeclaredNetwork("network_def", ports, {})
    first, again, other = (make_inputs(declared, seed, FreeSizes()) for seed in (0, 0, 1))
    assert first["scan"].equal(again["scan"])
    assert not first["scan"].equal(other["scan"])
    assert first["scan"].shape == (1, 2, 5, 6)
    assert first["scan"].dtype == torch.float32
    assert -3 <= first["scan"].min() < 0 < first["scan"].max() <= 4
    assert first["step"].dtype == torch.int64
    assert 2 <= first["step"].item() <= 4


def test_inputs_go_by_name_where_the_network_has_the_names() -> None:
    volume = Port(1, (2, 2, 2), "float32")
    outputs = {"field": Port(3, (2, 2, 2), "float32"), "score": Port(1, (), "float32")}
    declared = DeclaredNetwork("network_def", {"fixed": volume, "moving": volume}, outputs)
    inputs = {"fixed": torch.ones(1, 1, 2, 2, 2), "moving": torch.zeros(1, 1, 2, 2, 2)}
    outputs = DeclaredNetwork(
        "n", declared.inputs, {"field": Port(3, (2,), "float32"), "score": Port(1, (), "float32")}
    )
    field = run_network(TwoInputs(), outputs, inputs)["field"][0]
    assert field.amax(dim=(0, 2, 3, 4)).tolist() == [0, 1, 1]


def test_a_declaration_that_is_not_whole_is_refused() -> None:
    with pytest.raises(BundleError, match="describe each network's ports whole"):
        declared_networks({"network_data_format": {"inputs": {"image": {}}, "outputs": {}}})
