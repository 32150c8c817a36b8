"""``vol3d demo`` with a small untrained network: what it says and where its labels lie."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vol3d.bundle.load import load_bundle
from vol3d.cli import demo
from vol3d.data.volume import Volume
from vol3d.errors import GeometryError
from vol3d.geometry import VolumeGeometry
from vol3d.inference.bilateral import BilateralPredictor, Side


@pytest.fixture(scope="module")
def symmetric_head():
    """A head that is its own mirror image in x; voxel centers at -19.5 ... 19.5 mm."""
    half = np.random.default_rng(0).normal(100, 20, (20, 24, 18)).astype(np.float32)
    affine = np.eye(4)
    affine[0, 3] = -19.5
    return Volume(np.concatenate([half[::-1], half]), VolumeGeometry((40, 24, 18), affine))


@pytest.fixture
def predictor(bundle):
    sides = (
        Side(name, load_bundle(bundle, device="cpu", overrides={"side": name}), (x, 11.5, 8.5))
        for name, x in (("left", -10.0), ("right", 10.0))
    )
    return BilateralPredictor(tuple(sides), (12.0, 16.0, 12.0))


def test_demo_puts_left_labels_on_the_left_of_the_head(run, tmp_path):
    finished = run("demo", "-o", tmp_path / "demo")
    assert (finished.code, finished.err) == (0, "")
    left, right, folder = finished.out.splitlines()
    pattern = r"{} hippocampus \d+\.\d\d ml \(anterior \d+\.\d\d, posterior \d+\.\d\d\)"
    assert re.fullmatch(pattern.format("left"), left)
    assert re.fullmatch(pattern.format("right"), right)
    assert folder.endswith(str(tmp_path / "demo" / "icbm152"))

    image = nib.load(tmp_path / "demo" / "icbm152" / "labels.nii.gz")
    nilearn = Path(importlib.util.find_spec("nilearn").origin).parent
    template = nib.load(nilearn / demo.TEMPLATE)
    assert image.shape == template.shape
    assert image.affine == pytest.approx(template.affine)
    labels = np.asarray(image.dataobj)
    x_world = nib.affines.apply_affine(image.affine, np.argwhere(labels > 0))[:, 0]
    values = labels[labels > 0]
    assert len(values) > 100
    assert set(values[x_world < 0]) <= {1, 2}
    assert set(values[x_world > 0]) <= {3, 4}

    report = json.loads((tmp_path / "demo" / "icbm152" / "report.json").read_text())
    assert list(report["volumes_ml"]) == ["left anterior", "left posterior", "right anterior", "right posterior"]
    assert sum(report["volumes_ml"].values()) == pytest.approx(len(values) / 1000, abs=1e-3)
    assert (tmp_path / "demo" / "icbm152" / "overlay.png").is_file()
    assert run("demo", "-o", tmp_path / "demo").out == finished.out


def test_mirror_symmetric_head_has_mirror_symmetric_labels(predictor, symmetric_head):
    labels = predictor(symmetric_head).labels
    left, right = labels[:20], labels[20:]
    assert {1, 2} & set(np.unique(left))
    assert np.array_equal(np.where(left > 0, left + 2, 0)[::-1], right)


def test_scan_that_does_not_hold_both_sides_is_refused(predictor, symmetric_head):
    half = Volume(symmetric_head.array[:20], symmetric_head.geometry.crop((0, 0, 0), (20, 24, 18)))
    with pytest.raises(GeometryError, match="scan must contain the right crop"):
        predictor(half)


def test_demo_without_nilearn_says_how_to_get_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    finished = run("demo", "-o", tmp_path / "demo")
    assert finished.code == 5
    assert "pip install 'vol3d[demo]'" in finished.error_line
    assert not (tmp_path / "demo").exists()
