"""From a folder to a predictor, and every reason why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vol3d.bundle.load import choose_device, load_bundle
from vol3d.errors import BundleError, ConfigError, RequirementError, UsageError, WeightsError

SCAN = (np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5), np.diag([2.0, 1, 1, 1]))


def test_a_loaded_bundle_segments_an_array(maker: Any) -> None:
    layout = maker.weights()
    result = load_bundle(layout.root, "cpu")(SCAN)
    weights = torch.load(layout.weights_path)
    logits = weights["weight"].numpy().reshape(3, 1, 1, 1) * SCAN[0] + weights["bias"].numpy().reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(result.labels, logits.argmax(axis=0))
    assert set(result.volumes_ml) == {"front", "back"}


def test_missing_weights_are_refused_before_anything_runs(maker: Any) -> None:
    with pytest.raises(WeightsError, match="got no such file"):
        load_bundle(maker.layout.root, "cpu")


def test_named_weights_replace_the_bundles(maker: Any, tmp_path: Any) -> None:
    maker.weights().weights_path.rename(tmp_path / "mine.pt")
    load_bundle(maker.layout.root, "cpu", {"ckpt_path": str(tmp_path / "mine.pt")})
    with pytest.raises(WeightsError, match=r"got no file .*absent\.pt; check ckpt_path"):
        load_bundle(maker.layout.root, "cpu", {"ckpt_path": str(tmp_path / "absent.pt")})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": torch.zeros(3, 1, 1, 1, 1)}, r"2 tensors, got .*first that differs: bias"),
        ({"weight": torch.zeros(3, 1, 1, 1, 1), "bias": torch.zeros(4)}, r"shape \(3,\) at bias, got \(4,\)"),
        ([torch.zeros(1), torch.zeros(1)], "first that differs: list"),
        (torch.nn.Conv3d(1, 3, 1), "must be a state dict that loads with weights_only"),
    ],
    ids=["too few", "wrong shape", "no dictionary", "pickled network"],
)
def test_weights_of_another_network_are_refused(maker: Any, weights: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_bundle(maker.weights(weights).root, "cpu")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 half"])
def test_a_damaged_weights_file_is_refused(maker: Any, content: bytes) -> None:
    maker.weights().weights_path.write_bytes(content)
    with pytest.raises(WeightsError, match="must be a state dict"):
        load_bundle(maker.layout.root, "cpu")


def test_an_unknown_override_is_refused(maker: Any) -> None:
    with pytest.raises(ConfigError, match=r"'roi_sise'; did you mean roi_size\?"):
        load_bundle(maker.weights().root, "cpu", {"roi_sise": [1, 1, 1]})


def test_a_config_without_a_piece_that_a_predictor_needs_is_refused(maker: Any) -> None:
    maker.config("inference", {"network_def": {}, "ckpt_path": "x", "bundle_root": "."})
    with pytest.raises(BundleError, match="must define preprocessing, inferer, restore_transforms"):
        load_bundle(maker.weights().root, "cpu")


def test_a_folder_that_monai_would_misread_is_refused(maker: Any) -> None:
    moved = maker.weights().root.rename(maker.layout.root.with_name("a#b"))
    with pytest.raises(UsageError, match="must not contain '#'"):
        load_bundle(moved, "cpu")


def test_auto_takes_cuda_where_it_is_and_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")


def test_a_device_that_is_not_there_is_never_replaced() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(RequirementError, match="'cuda:7'; see `vol3d doctor`"):
        choose_device("cuda:7")
    with pytest.raises(UsageError, match="auto, cpu, cuda or cuda:N, got 'gpu'"):
        choose_device("gpu")
