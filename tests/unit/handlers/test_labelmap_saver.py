"""Label maps on the disk, one per evaluated case."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from vol3d.data.volume_reader import read_volume
from vol3d.errors import OutputError
from vol3d.handlers.labelmap_saver import LabelmapSaver

if TYPE_CHECKING:
    from pathlib import Path

OBLIQUE = torch.tensor([[0.9, -0.4, 0, 5], [0.4, 0.9, 0, -7], [0, 0, -2, 3], [0, 0, 0, 1]], dtype=torch.float64)


def engine_after(cases: dict[str, torch.Tensor]) -> Any:
    output = [{"pred": MetaTensor(labels, affine=OBLIQUE)} for labels in cases.values()]
    return SimpleNamespace(state=SimpleNamespace(output=output, batch=[{"case": case} for case in cases]))


def test_each_case_of_a_batch_becomes_a_file_on_its_own_grid(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cases = {"a": torch.randint(0, 3, (1, 4, 5, 6)).float(), "b": torch.randint(0, 3, (1, 7, 3, 2)).float()}
    LabelmapSaver(str(tmp_path / "new"))(engine_after(cases))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.nii.gz", "b.nii.gz"]
    for case, labels in cases.items():
        volume = read_volume(tmp_path / "new" / f"{case}.nii.gz")
        np.testing.assert_array_equal(volume.array, labels[0].numpy())
        np.testing.assert_allclose(volume.geometry.affine, OBLIQUE.numpy(), atol=1e-5)


def test_overwriting_is_a_choice(tmp_path: Path) -> None:
    engine = engine_after({"a": torch.ones(1, 3, 3, 3)})
    LabelmapSaver(str(tmp_path))(engine)
    LabelmapSaver(str(tmp_path))(engine)
    with pytest.raises(OutputError, match="must not exist"):
        LabelmapSaver(str(tmp_path), overwrite=False)(engine)


def test_a_case_without_any_label_is_written_too(tmp_path: Path) -> None:
    LabelmapSaver(str(tmp_path))(engine_after({"empty": torch.zeros(1, 3, 4, 5)}))
    assert read_volume(tmp_path / "empty.nii.gz").array.max() == 0
