"""The readers against ITK, which shares no code with them and is what many sites look at their scans with.

ITK runs in a process of its own: its wheel 5.4.7 crashes in a process that has loaded SimpleITK and torch.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vol3d.data.phantoms import make_phantom
from vol3d.data.volume_reader import read_volume
from vol3d.data.volume_writer import write_volume
from vol3d.geometry import RAS_TO_LPS

if TYPE_CHECKING:
    from pathlib import Path

ITK_PROGRAM = """
import sys, itk, numpy as np
image = itk.imread(sys.argv[1])
affine = np.eye(4)
affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) @ np.diag(np.array(image.GetSpacing()))
affine[:3, 3] = np.array(image.GetOrigin())
np.savez(sys.argv[2], array=itk.array_from_image(image).T, lps_affine=affine)
"""


def read_with_itk(path: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels ``H W D`` and the affine to RAS+ mm as ITK reads them."""
    copy = folder / "itk.npz"
    subprocess.run([sys.executable, "-c", ITK_PROGRAM, str(path), str(copy)], check=True, timeout=120)
    with np.load(copy) as stored:
        return stored["array"], RAS_TO_LPS @ stored["lps_affine"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_written_volume_is_the_same_to_itk_and_to_us(tmp_path: Path, suffix: str) -> None:
    phantom = make_phantom((9, 11, 7), (0.8, 1.1, 2.5), seed=3, is_oblique=True)
    path = tmp_path / f"scan{suffix}"
    write_volume(path, phantom.image.array, phantom.image.geometry)
    ours = read_volume(path)
    array, affine = read_with_itk(path, tmp_path)
    np.testing.assert_array_equal(ours.array, array)
    # NIfTI keeps its grid in float32.
    np.testing.assert_allclose(ours.geometry.affine, affine, atol=1e-4)


def test_a_dicom_series_is_the_same_to_itk_and_to_us(real_data: Path, tmp_path: Path) -> None:
    (folder,) = (path for path in (real_data / "dicom").glob("*/*") if path.is_dir())
    ours = read_volume(folder)
    array, affine = read_with_itk(folder, tmp_path)
    np.testing.assert_array_equal(ours.array, array)
    np.testing.assert_allclose(ours.geometry.affine, affine, atol=1e-3)
