"""A small untrained bundle, scans to feed it, and the program as a function."""

from __future__ import annotations

import logging
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from vol3d.cli.main import main
from vol3d.networks.attention_unet import AttentionUNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "hippocampus_mr_segmentation"
# Small enough for seconds: 16 voxels a side, so that most scans here need several windows.
SMALLER = {"channels: [16, 32, 64, 128]": "channels: [4, 8]", "roi_size: [48, 64, 48]": "roi_size: [16, 16, 16]"}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hippocampus bundle with a small untrained network: its configs are those that ship."""
    root = tmp_path_factory.mktemp("bundles") / NAME
    shutil.copytree(REPOSITORY / "bundles" / NAME, root, ignore=shutil.ignore_patterns("*.pt", "runs", "eval"))
    config = root / "configs" / "inference.yaml"
    text = config.read_text()
    for large, small in SMALLER.items():
        assert text.count(large) == 1
        text = text.replace(large, small)
    config.write_text(text)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        weights = AttentionUNet(1, 3, channels=[4, 8], dropout=0.1).state_dict()
    (root / "models").mkdir(exist_ok=True)
    torch.save(weights, root / "models" / "model.pt")
    return root


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(bundle, tmp_path / "own" / NAME))


@dataclass(frozen=True)
class Finished:
    """What a run of the program left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The only line on stderr, which must be short and nothing but an error."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        assert "Traceback" not in line
        return line


@pytest.fixture
def run(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Finished]]:
    """Run ``vol3d ARGUMENTS`` in this process, which has torch imported already."""
    root = logging.getLogger()
    handlers, levels = root.handlers, {name: logging.getLogger(name).level for name in ("", "vol3d", "ignite")}
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setenv("VOL3D_BUNDLES", str(bundle.parent))
    root.handlers = []  # the program sets up logging anew, which would close those of pytest

    def invoke(*arguments: Any) -> Finished:
        monkeypatch.setattr(sys, "argv", ["vol3d", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        shown = capsys.readouterr()
        return Finished(int(stop.value.code or 0), shown.out, shown.err)

    yield invoke
    root.handlers = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture
def write_scan(tmp_path: Path) -> Callable[..., Path]:
    """Write a NIfTI volume of noise (or of given voxels) and return its path."""

    def write(
        name: str = "scan.nii.gz",
        voxels: Any = (9, 10, 8),
        affine: Any = None,
        folder: Path = tmp_path,
    ) -> Path:
        if isinstance(voxels, tuple):
            voxels = np.random.default_rng(0).normal(100, 20, voxels).astype(np.float32)
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), folder / name)
        return folder / name

    return write


@pytest.fixture
def write_series(tmp_path: Path) -> Callable[..., Path]:
    """Write axial MR slices, 2 mm apart, and return their folder."""

    def write(name: str = "series", uid: str = "1.2.826.0.1.1", slices: Any = range(7), step_mm: float = 2.0) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        voxels = np.random.default_rng(0).integers(0, 2000, (max(slices) + 1, 9, 8)).astype("<u2")
        for number in slices:
            path = folder / f"{uid[-1]}_{number}.dcm"
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = MRImageStorage
            meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
            data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
            data.PatientName, data.PatientID, data.Modality = "Doe^Jane", "4711", "MR"
            data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.826.0.1", uid
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.Rows, data.Columns = voxels.shape[1:]
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
            data.PixelSpacing, data.ImageOrientationPatient = [1.5, 1.2], [1, 0, 0, 0, 1, 0]
            data.ImagePositionPatient = [-10, 20, 30 + number * step_mm]
            data.PixelData = voxels[number].tobytes()
            pydicom.dcmwrite(path, data, enforce_file_format=True)
        return folder

    return write


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labeled cases: two for training and two for validation."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    for number in range(4):
        label = np.zeros((12, 14, 10), np.uint8)
        label[3:8, 2:6, 3:7], label[3:8, 6:11, 3:7] = 1, 2
        image = (100.0 * label + rng.normal(0, 10, label.shape)).astype(np.float32)
        for kind, voxels in (("images", image), ("labels", label)):
            (root / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / kind / f"case_{number}.nii.gz")
    cases = '"training": ["case_0", "case_1"], "validation": ["case_2", "case_3"]'
    (root / "dataset.json").write_text(f'{{"name": "blocks", {cases}}}')
    return root
