"""Do a bundle's networks take and give what its metadata declares?

MONAI's ``verify_net_in_out`` knows one input named ``image`` and one output named ``pred``, and looks at channels and
type alone. Here every declared network runs with all its inputs, under any names, and the spatial shape counts too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.bundle import ConfigParser

from vol3d.bundle.config_layers import read_layers
from vol3d.bundle.declared_network import FreeSizes, build_network, declared_networks, make_inputs, run_network
from vol3d.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from vol3d.bundle.declared_network import DeclaredNetwork, Port
    from vol3d.bundle.layout import BundleLayout

_TRIED_SIZES = (FreeSizes(), FreeSizes(n=2, any_size=48))
"""A shape that is left open is tried at two sizes, one of them odd."""


def check_network(layout: BundleLayout, job: str = "inference") -> list[str]:
    """Run every declared network of a bundle on random input and return what does not hold, one line each.

    Args:
        layout: The bundle. Its weights are not needed: shapes do not depend on them.
        job: Which configs define the networks, a key of ``vol3d.bundle.layout.LAYERS``.
    """
    try:
        networks = declared_networks(layout.metadata())
        parser = ConfigParser(config={**read_layers(layout.config_paths(job)), "bundle_root": str(layout.root)})
    except BundleError as error:
        return [str(error)]
    findings: list[str] = []
    for declared in networks:
        try:
            findings += _findings(build_network(parser, declared.definition_id), declared)
        except Exception as error:  # noqa: BLE001 - a network may fail in any way; the finding says how
            findings.append(f"{declared.definition_id} must run on its declared inputs, got {_reason(error)}")
    return findings


def _findings(network: nn.Module, declared: DeclaredNetwork) -> Iterator[str]:
    for sizes in _TRIED_SIZES if declared.is_open else _TRIED_SIZES[:1]:
        outputs = run_network(network, declared, make_inputs(declared, seed=0, sizes=sizes))
        for name, port in declared.outputs.items():
            where = f"output {name} of {declared.definition_id}"
            for number, tensor in enumerate(outputs[name]):
                # Only the first of a pyramid's levels has the declared size.
                yield from _tensor_findings(where, tensor, port, sizes if number == 0 else None)


def _tensor_findings(where: str, tensor: torch.Tensor, port: Port, sizes: FreeSizes | None) -> Iterator[str]:
    shape = tuple(tensor.shape)[1:]
    if shape[:1] != (port.num_channels,):
        yield f"{where} must have {port.num_channels} channels, got shape {tuple(tensor.shape)}"
    elif sizes is not None and shape != port.shape(sizes):
        yield f"{where} must have spatial shape {port.shape(sizes)[1:]}, got {shape[1:]}"
    if tensor.dtype != getattr(torch, port.dtype):
        yield f"{where} must have type {port.dtype}, got {str(tensor.dtype).removeprefix('torch.')}"
    if not bool(torch.isfinite(tensor).all()):
        yield f"{where} must be finite, got {int((~torch.isfinite(tensor)).sum())} voxels that are not"


def _reason(error: BaseException) -> str:
    """Return an error and the first cause, in one line: MONAI wraps what a config raises."""
    cause = error.__cause__
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    text = " ".join(str(cause or error).split())
    return f"{type(cause or error).__name__}: {text[:200]}"
