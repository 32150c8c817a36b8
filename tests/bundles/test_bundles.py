"""What every bundle of the repository must keep, whatever its task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from vol3d.bundle.declared_network import DeclaredNetwork, FreeSizes, declared_networks, make_inputs
from vol3d.bundle.golden_check import check_golden
from vol3d.bundle.layout import LAYERS, BundleLayout
from vol3d.bundle.metadata_check import check_metadata
from vol3d.bundle.network_check import check_network
from vol3d.bundle.properties_check import check_properties
from vol3d.bundle.weights_check import check_weights, trained_network

Run = Callable[[str, Path], Any]
MAX_WEIGHTS_BYTES = 12_000_000


def test_bundle_has_every_file(layout: BundleLayout) -> None:
    jobs = {layer for layers in LAYERS.values() for layer in layers}
    expected = [*(f"configs/{job}.yaml" for job in jobs), "LICENSE", "docs/README.md", "docs/data_license.txt"]
    assert [name for name in expected if not (layout.root / name).is_file()] == []
    assert not (layout.root / "scripts").exists()


def test_weights_are_small_and_fit_the_network(layout: BundleLayout) -> None:
    if not layout.weights_path.is_file():
        pytest.skip(f"{layout.name} has no weights yet")
    assert layout.weights_path.stat().st_size < MAX_WEIGHTS_BYTES
    assert check_weights(layout) == []


def test_network_still_gives_the_golden_answer(layout: BundleLayout) -> None:
    if not layout.weights_path.is_file():
        pytest.skip(f"{layout.name} has no weights yet")
    assert check_golden(layout) == []


def test_metadata_keep_to_schema_configs_and_versions(layout: BundleLayout) -> None:
    assert check_metadata(layout) == []


def test_configs_have_the_keys_of_their_workflow(layout: BundleLayout) -> None:
    assert check_properties(layout) == []


def test_networks_take_and_give_what_the_metadata_declare(layout: BundleLayout) -> None:
    assert check_network(layout) == []


def test_monai_verifies_the_metadata_without_a_network(copied: BundleLayout, run_command: Run) -> None:
    done = run_command(readme_command(copied, "verify_metadata"), copied.root)
    assert "skipped downloading" in done.stdout + done.stderr
    assert "metadata is verified with no error" in done.stdout + done.stderr


def test_monai_verifies_input_and_output(copied: BundleLayout, run_command: Run) -> None:
    declared = single_tensor_network(copied)
    if list(declared.inputs) != ["image"] or list(declared.outputs) != ["pred"]:
        pytest.skip("MONAI's command knows only the names image and pred")
    run_command(readme_command(copied, "verify_net_in_out"), copied.root)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")  # MONAI still exports by it
def test_torchscript_export_gives_the_same_output(copied: BundleLayout, run_command: Run) -> None:
    image, eager = eager_output(copied)
    run_command(readme_command(copied, "ckpt_export"), copied.root)
    with torch.inference_mode():
        exported = torch.jit.load(copied.root / "models" / "model.ts", map_location="cpu")(image)
    torch.testing.assert_close(exported, eager, atol=1e-4, rtol=0)


def test_onnx_export_gives_the_same_output(copied: BundleLayout, run_command: Run) -> None:
    image, eager = eager_output(copied)
    run_command(readme_command(copied, "onnx_export"), copied.root)
    session = onnxruntime.InferenceSession(copied.root / "models" / "model.onnx", providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    np.testing.assert_allclose(exported, eager.numpy(), atol=1e-3, rtol=0)


def readme_command(layout: BundleLayout, name: str) -> str:
    """The one line of the bundle's README that runs this command of MONAI's."""
    lines = (layout.root / "docs" / "README.md").read_text(encoding="utf-8").splitlines()
    (command,) = [line for line in lines if line.startswith(f"python -m monai.bundle {name} ")]
    return command


def single_tensor_network(layout: BundleLayout) -> DeclaredNetwork:
    declared = declared_networks(layout.metadata())[0]
    if len(declared.inputs) != 1 or len(declared.outputs) != 1:
        pytest.skip("MONAI's command knows one input and one output")
    return declared


def eager_output(layout: BundleLayout) -> tuple[torch.Tensor, torch.Tensor]:
    (image,) = make_inputs(single_tensor_network(layout), seed=5, sizes=FreeSizes()).values()
    with torch.inference_mode():
        return image, trained_network(layout)(image)
