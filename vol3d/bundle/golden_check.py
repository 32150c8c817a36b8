"""A bundle's golden answer: what its network says to one seeded input, so that anyone can see that it still does.

``docs/golden.json`` holds, for every output of ``network_def``, the shape, two float64 means over all values, and some
values by themselves. Means instead of sums, because one tolerance then serves all.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.bundle.declared_network import FreeSizes, declared_networks, make_inputs, run_network
from vol3d.bundle.weights_check import DEFINITION_ID, trained_network
from vol3d.data.atomic_write import atomic_path
from vol3d.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

    from vol3d.bundle.declared_network import DeclaredNetwork
    from vol3d.bundle.layout import BundleLayout

TOLERANCE = 1e-3
"""Largest difference between machines; kernels of CPUs and GPUs order their sums differently."""

_NUM_SAMPLES = 8


def golden_path(layout: BundleLayout) -> Path:
    """Return where a bundle keeps its golden answer."""
    return layout.root / "docs" / "golden.json"


def write_golden(layout: BundleLayout, seed: int = 0) -> Path:
    """Run the network with its weights on the seeded input and record the answer; returns the file.

    Raises:
        BundleError: If the bundle cannot be read or its weights do not fit.
        OSError: If the file cannot be written.
    """
    path = golden_path(layout)
    with atomic_path(path) as aside:
        aside.write_text(json.dumps(_answer(layout, seed), indent=2) + "\n", encoding="utf-8")
    return path


def check_golden(layout: BundleLayout) -> list[str]:
    """Run the network again and return where its answer differs from the golden one, one line each.

    Raises:
        BundleError: If the bundle cannot be read or its weights do not fit.
    """
    try:
        golden = json.loads(golden_path(layout).read_text(encoding="utf-8"))
        seed, tolerance, outputs = int(golden["seed"]), float(golden["tolerance"]), dict(golden["outputs"])
    except FileNotFoundError:
        return [f"docs/golden.json must hold the answer to a seeded input, got no such file; {_remedy(layout)}"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"docs/golden.json must be readable, got {type(error).__name__}: {error}; {_remedy(layout)}"]
    own = _answer(layout, seed)["outputs"]
    if own.keys() != outputs.keys():
        return [f"docs/golden.json must have the outputs {sorted(own)}, got {sorted(outputs)}; {_remedy(layout)}"]
    return [finding for name in own for finding in _differences(name, own[name], outputs[name], tolerance)]


def _remedy(layout: BundleLayout) -> str:
    return f"record it with `vol3d check {layout.name} --update-golden`"


def _answer(layout: BundleLayout, seed: int) -> dict[str, Any]:
    declared = _declared(layout)
    outputs = run_network(trained_network(layout), declared, make_inputs(declared, seed, FreeSizes()))
    return {
        "seed": seed,
        "tolerance": TOLERANCE,
        "outputs": {
            f"{name}/{number}" if len(tensors) > 1 else name: _summary(tensor)
            for name, tensors in outputs.items()
            for number, tensor in enumerate(tensors)
        },
    }


def _declared(layout: BundleLayout) -> DeclaredNetwork:
    for declared in declared_networks(layout.metadata()):
        if declared.definition_id == DEFINITION_ID:
            return declared
    raise BundleError(
        f"metadata.json of {layout.name} must declare network_data_format, got none; describe the network"
    )


def _summary(tensor: torch.Tensor) -> dict[str, Any]:
    values = tensor.detach().double().numpy()
    indices = np.random.default_rng(values.size).choice(values.size, min(_NUM_SAMPLES, values.size), replace=False)
    return {
        "shape": list(values.shape),
        "mean": float(values.mean()),
        "mean_magnitude": float(np.abs(values).mean()),
        "samples": {str(index): float(values.flat[index]) for index in np.sort(indices)},
    }


def _differences(name: str, own: Mapping[str, Any], golden: Mapping[str, Any], tolerance: float) -> Iterator[str]:
    if own["shape"] != golden["shape"]:
        yield f"golden shape of {name} must be {golden['shape']}, got {own['shape']}; the network has changed"
        return
    pairs = {key: (own[key], golden[key]) for key in ("mean", "mean_magnitude")}
    pairs |= {f"value {index}": (own["samples"].get(index), value) for index, value in golden["samples"].items()}
    for key, (value, wanted) in pairs.items():
        if value is None or not abs(value - wanted) <= tolerance:
            yield f"golden {key} of {name} must be {wanted:.6g} within {tolerance}, got {value}; weights or code differ"
            return
