"""The probe of a packed bundle: a seeded input for its network and the output that its maker got.

A site that pulled the bundle runs the probe to see that its own torch, MONAI and hardware compute the same. The input
comes from NumPy's legacy generator, whose numbers NEP 19 keeps for ever. This is the one module of the package that
runs what a config names; callers audit the bundle first.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.sharing.refusal import refused, shorten
from vol3d.sharing.strict_documents import read_document
from vol3d.sharing.weights import safetensors_library

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SEED = 0
NUM_SAMPLES = 16
# float32 convolutions sum in another order on another machine; on one machine repeats are bit-identical.
RELATIVE_TOLERANCE = 1e-3


def make_probe(root: Path, weights: Path, metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return seeded input and expected output of a bundle's network, or None if it takes other than one volume.

    Args:
        root: Bundle folder with ``configs/inference.json`` or ``.yaml``.
        weights: Its safetensors file.
        metadata: Its metadata; ``network_data_format`` gives channels and shape of the one input.
    """
    inputs = metadata.get("network_data_format", {}).get("inputs", {})
    if len(inputs) != 1:
        return None
    (entry,) = inputs.values()
    shape = [1, entry.get("num_channels"), *entry.get("spatial_shape", ())]
    if len(shape) != 5 or not all(type(n) is int and n > 0 for n in shape):
        return None
    output = _run(root, weights, shape)
    flat = output.ravel()
    positions = np.linspace(0, flat.size - 1, NUM_SAMPLES).astype(int)
    return {
        "seed": SEED,
        "input_shape": shape,
        "output_shape": list(output.shape),
        "output_sha256": hashlib.sha256(output.tobytes()).hexdigest(),
        "output_mean": float(flat.mean(dtype=np.float64)),
        "output_std": float(flat.std(dtype=np.float64)),
        "output_samples": [float(value) for value in flat[positions]],
    }


def check_probe(root: Path, weights: Path, expected: Mapping[str, Any]) -> str:
    """Run a probe again; returns ``bit-identical``, or the largest difference that was found and is tolerated.

    Raises:
        RefusedError: If the output differs by more than 0.1 % of the spread of the expected output.
    """
    metadata = {"network_data_format": {"inputs": {"image": _entry(expected)}}}
    found = make_probe(root, weights, metadata)
    if found is None or found["output_shape"] != expected["output_shape"]:
        got = found["output_shape"] if found else "no output"
        raise refused("probe.shape", f"output must have shape {expected['output_shape']}, got {got}; check versions")
    if found["output_sha256"] == expected["output_sha256"]:
        return "bit-identical"
    differences = np.abs(np.subtract(found["output_samples"], expected["output_samples"]))
    largest = max(float(differences.max()), abs(found["output_mean"] - expected["output_mean"]))
    tolerance = RELATIVE_TOLERANCE * max(float(expected["output_std"]), 1e-6)
    if not largest <= tolerance:
        raise refused("probe.output", f"output must be within {tolerance:.3g}, got {largest:.3g} off; check versions")
    return f"within {largest:.3g}"


def _entry(expected: Mapping[str, Any]) -> dict[str, Any]:
    _, channels, *spatial = expected["input_shape"]
    return {"num_channels": channels, "spatial_shape": spatial}


def _run(root: Path, weights: Path, shape: list[int]) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - heavy
    from monai.bundle import ConfigParser  # noqa: PLC0415 - heavy

    twin = root / "configs" / "inference.json"
    path = twin if twin.is_file() else twin.with_suffix(".yaml")
    network = ConfigParser(config=read_document(path, path.name)).get_parsed_content("network_def")
    if not isinstance(network, torch.nn.Module):
        raise refused("probe.network", f"network_def must be a network, got {shorten(type(network).__name__)}")
    try:
        network.load_state_dict(safetensors_library().load_file(weights))
    except RuntimeError as error:
        raise refused("probe.weights", f"weights must fit network_def, got {shorten(str(error), 100)}") from None
    # A copy of the noise: torch keeps no arrays that it may not write to.
    noise = np.random.RandomState(SEED).random_sample(shape).astype(np.float32)
    with torch.no_grad():
        output = network.eval()(torch.from_numpy(noise))
    while not isinstance(output, torch.Tensor):
        # Deep supervision and reconstruction branches: the first one is the prediction.
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return np.ascontiguousarray(output.float().numpy())
