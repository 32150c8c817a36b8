"""Weights: pickles are listed, never run; what is rebuilt equals what was packed."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from safetensors.torch import load_file, save_file

from vol3d.errors import RefusedError
from vol3d.sharing.leaks import scan_file
from vol3d.sharing.weights import (
    check_checkpoint,
    check_safetensors,
    checkpoint_to_safetensors,
    rebuild_checkpoint,
)

if TYPE_CHECKING:
    from pathlib import Path

STATE = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([1.5, float("nan")], dtype=torch.float16),
    "brain": torch.tensor([-0.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("content", [STATE, {"model": STATE}], ids=["flat", "nested"])
def test_checkpoint_is_rebuilt_tensor_by_tensor(content: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "model.pt", content)
    checkpoint_to_safetensors(checkpoint, tmp_path / "model.safetensors")
    rebuild_checkpoint(tmp_path / "model.safetensors", tmp_path / "rebuilt.pt")
    rebuilt = torch.load(tmp_path / "rebuilt.pt", weights_only=True)
    assert list(rebuilt) == ["model"] if "model" in content else set(rebuilt) == set(STATE)
    for name, tensor in (rebuilt.get("model") or rebuilt).items():
        assert tensor.dtype == STATE[name].dtype
        assert tensor.shape == STATE[name].shape
        assert tensor.flatten().view(torch.uint8).tolist() == STATE[name].flatten().view(torch.uint8).tolist()


def test_tied_tensors_survive(tmp_path: Path) -> None:
    tied = torch.arange(4.0)
    checkpoint = saved(tmp_path / "model.pt", {"a": tied, "b": tied, "view": tied[1:3], "turned": tied.reshape(2, 2).T})
    checkpoint_to_safetensors(checkpoint, tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors")["turned"].tolist() == [[0, 2], [1, 3]]


def test_parameters_are_tensors(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "model.pt", {"a": torch.nn.Parameter(torch.ones(2))})
    checkpoint_to_safetensors(checkpoint, tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors")["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "content",
    [{"a": MetaTensor(torch.ones(1), meta={"filename_or_obj": "x"})}, torch.nn.Linear(1, 1)],
    ids=["metatensor", "module"],
)
def test_checkpoint_with_more_than_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"weights\.pickle"):
        check_checkpoint(saved(tmp_path / "model.pt", content), "models/model.pt")


@pytest.mark.parametrize("content", [{"a": 1}, {}, {"epoch": 3, "model": STATE}, {1: torch.ones(1)}])
def test_checkpoint_that_is_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="must hold tensors only"):
        checkpoint_to_safetensors(saved(tmp_path / "model.pt", content), tmp_path / "model.safetensors")


def test_path_of_a_scan_inside_a_checkpoint_is_found(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "model.pt", {"weight": torch.ones(1), "/export/ct/P001/scan.nii.gz": torch.ones(1)})
    (finding,) = scan_file(checkpoint, "models/model.pt")
    assert finding.code == "leak.path"
    assert "P001" not in finding.line()


def test_safetensors_written_by_its_own_library_passes(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    assert set(check_safetensors(tmp_path / "model.safetensors", "x")) == set(STATE)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from("ab"), st.lists(st.integers(-1, 9), max_size=2)), st.binary(max_size=40))
def test_any_header_passes_only_if_it_tiles_the_data(
    tmp_path: Path, tensors: dict[str, list[int]], data: bytes
) -> None:
    path, position, header = tmp_path / "x.safetensors", 0, {}
    for name, shape in tensors.items():
        size = 1
        for axis in shape:
            size *= axis
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    is_sound = position == len(data) and all(axis >= 0 for shape in tensors.values() for axis in shape)
    if is_sound:
        check_safetensors(path, "x")
    else:
        with pytest.raises(RefusedError, match="sound safetensors"):
            check_safetensors(path, "x")
