"""A bundle's networks as its metadata declares them, ready to be run on made-up input.

Vocabulary: a *port* is one input or output of a network by name. ``network_data_format`` in the metadata describes
``network_def`` of the configs, ``discriminator_data_format`` describes ``discriminator_def``, and so on.
"""

from __future__ import annotations

import ast
import inspect
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vol3d.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from monai.bundle import ConfigParser
    from torch import nn

_SUFFIX = "_data_format"
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class FreeSizes:
    """Values for what a declared spatial shape leaves open.

    Args:
        n: Value of ``n`` in expressions such as ``16*n``.
        p: Value of ``p`` in expressions such as ``2**p``.
        any_size: Size for ``*``.
    """

    n: int = 1
    p: int = 1
    any_size: int = 33


@dataclass(frozen=True)
class Port:
    """One declared input or output.

    Args:
        num_channels: Channels.
        spatial_shape: Sizes along ``H W D``: numbers, ``*``, or expressions in ``n`` and ``p``.
        dtype: Name of the type, as torch spells it.
        value_range: Lowest and highest value, or empty.
    """

    num_channels: int
    spatial_shape: tuple[int | str, ...]
    dtype: str
    value_range: tuple[float, ...] = ()

    def shape(self, sizes: FreeSizes) -> tuple[int, ...]:
        """Return channels and sizes, without the batch axis.

        Raises:
            BundleError: If an expression is not arithmetic in ``n`` and ``p``.
        """
        return (self.num_channels, *(_size(size, sizes) for size in self.spatial_shape))


@dataclass(frozen=True)
class DeclaredNetwork:
    """One network of a bundle's metadata.

    Args:
        definition_id: Id of its definition in the configs, for example ``network_def``.
        inputs: Inputs by name, in order.
        outputs: Outputs by name, in order.
    """

    definition_id: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]

    @property
    def is_open(self) -> bool:
        """Whether a declared size is left open."""
        return any(isinstance(size, str) for port in self.inputs.values() for size in port.spatial_shape)


def declared_networks(metadata: Mapping[str, Any]) -> list[DeclaredNetwork]:
    """Return every network that the metadata declares, in order.

    Raises:
        BundleError: If there is none, or a declaration lacks a key; see ``check_metadata``.
    """
    formats = {key.removesuffix(_SUFFIX): value for key, value in metadata.items() if key.endswith(_SUFFIX)}
    if not formats:
        raise BundleError("metadata.json must declare network_data_format, got none; describe inputs and outputs")
    try:
        return [
            DeclaredNetwork(
                f"{name}_def",
                {port: _read_port(content) for port, content in value["inputs"].items()},
                {port: _read_port(content) for port, content in value["outputs"].items()},
            )
            for name, value in formats.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"metadata.json must describe each network's ports whole, got {error!r}") from error


def build_network(parser: ConfigParser, definition_id: str) -> nn.Module:
    """Return the network of a config, on the CPU and in evaluation mode.

    Raises:
        BundleError: If the config does not define it.
    """
    if definition_id not in parser:
        raise BundleError(f"configs must define {definition_id}, which metadata.json declares, got no such key; add it")
    network: nn.Module = parser.get_parsed_content(definition_id)
    return network.cpu().eval()


def make_inputs(declared: DeclaredNetwork, seed: int, sizes: FreeSizes) -> dict[str, torch.Tensor]:
    """Return random input for every port with a batch axis of 1; the same on every machine for the same seed."""
    # numpy's generator: its stream is the same on all platforms and releases, torch promises neither.
    random = np.random.default_rng(seed)
    return {name: _random_tensor(port, random, sizes) for name, port in declared.inputs.items()}


@torch.inference_mode()
def run_network(
    network: nn.Module, declared: DeclaredNetwork, inputs: Mapping[str, torch.Tensor]
) -> dict[str, list[torch.Tensor]]:
    """Run a network and return its output tensors by port; several for a port that is a list, such as a pyramid.

    Inputs go to the arguments of ``forward`` by name where it has all of them, else by position. Outputs may be one
    tensor, a tuple or list in the declared order, or a dictionary.

    Raises:
        BundleError: If the outputs are not those declared.
    """
    arguments = inspect.signature(network.forward).parameters
    is_named = all(name in arguments for name in inputs)
    outputs = network(**inputs) if is_named else network(*inputs.values())
    names = list(declared.outputs)
    if isinstance(outputs, torch.Tensor):
        outputs = [outputs]
    if isinstance(outputs, dict):
        found = {str(name): value for name, value in outputs.items()}
        if set(found) != set(names):
            raise BundleError(f"outputs of {declared.definition_id} must be {names}, got {sorted(found)}")
    else:
        if len(outputs) != len(names):
            raise BundleError(f"outputs of {declared.definition_id} must be {names}, got {len(outputs)} values")
        found = dict(zip(names, outputs, strict=True))
    return {name: [found[name]] if isinstance(found[name], torch.Tensor) else list(found[name]) for name in names}


def _read_port(content: Mapping[str, Any]) -> Port:
    return Port(
        int(content["num_channels"]),
        tuple(content["spatial_shape"]),
        str(content["dtype"]),
        tuple(content.get("value_range", ())),
    )


def _random_tensor(port: Port, random: np.random.Generator, sizes: FreeSizes) -> torch.Tensor:
    shape = (1, *port.shape(sizes))
    dtype: torch.dtype = getattr(torch, port.dtype)
    low, high = port.value_range if len(port.value_range) == 2 else (0.0, 1.0)
    if dtype.is_floating_point:
        return torch.from_numpy(random.uniform(low, high, shape)).to(dtype)
    return torch.from_numpy(random.integers(int(low), int(high), shape, endpoint=True)).to(dtype)


def _size(size: int | str, sizes: FreeSizes) -> int:
    if isinstance(size, int):
        return size
    if size.strip() == "*":
        return sizes.any_size
    try:
        return _evaluated(ast.parse(size.strip(), mode="eval").body, {"n": sizes.n, "p": sizes.p})
    except (SyntaxError, KeyError) as error:
        raise BundleError(f"spatial_shape must be *, a number or arithmetic in n and p, got {size!r}") from error


def _evaluated(node: ast.expr, names: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_evaluated(node.left, names), _evaluated(node.right, names))
    raise KeyError(type(node).__name__)
