"""A bundle from Python: paths, volumes and arrays in, labels and probabilities on their grid out."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

import vol3d
from vol3d.errors import GeometryError, IntensityError, UsageError

AFFINE = np.diag([-1.0, -1.5, 2.0, 1.0])
AFFINE[:3, 3] = [30.0, -20.0, 5.0]


@pytest.fixture
def predictor(bundle):
    return vol3d.load_bundle(bundle, device="cpu")


@pytest.fixture
def array():
    return np.random.default_rng(0).normal(100, 20, (20, 9, 8)).astype(np.float32)


def test_path_volume_and_array_give_the_same_labels(predictor, array, write_scan):
    path = write_scan(voxels=array, affine=AFFINE)
    results = [predictor(source) for source in (path, str(path), vol3d.read_volume(path), (array, AFFINE))]
    for result in results:
        assert np.array_equal(result.labels, results[0].labels)
        assert result.labels.shape == array.shape
        assert result.labels.dtype == np.uint8
        assert result.geometry.affine == pytest.approx(AFFINE)
        assert result.geometry.axis_codes == "LPS"


def test_bundle_is_found_by_its_name(bundle, monkeypatch):
    monkeypatch.setenv("VOL3D_BUNDLES", str(bundle.parent))
    assert vol3d.load_bundle(bundle.name).class_names == {1: "anterior", 2: "posterior"}


def test_volumes_are_counted_in_milliliters(predictor, array):
    result = predictor((array, AFFINE))
    counts = np.bincount(result.labels.ravel(), minlength=3)
    assert result.volumes_ml == pytest.approx({"anterior": counts[1] * 0.003, "posterior": counts[2] * 0.003})


def test_probabilities_lie_on_the_grid_of_the_scan_and_sum_to_one(predictor, array):
    result = predictor((array, AFFINE))
    probabilities = result.probabilities()
    assert probabilities.shape == (3, *array.shape)
    assert probabilities.min() >= 0
    assert probabilities.sum(axis=0) == pytest.approx(1.0, abs=1e-4)
    assert np.array_equal(probabilities.argmax(axis=0), result.labels)


def test_integers_and_other_memory_orders_are_the_same_scan(predictor, array):
    whole = array.astype(np.int16)
    reference = predictor((whole.astype(np.float32), AFFINE)).labels
    assert np.array_equal(predictor((whole, AFFINE)).labels, reference)
    assert np.array_equal(predictor((np.asfortranarray(whole), AFFINE)).labels, reference)
    assert np.array_equal(predictor((whole.astype(">i2"), AFFINE)).labels, reference)


def test_given_array_is_not_changed(predictor, array):
    before = array.copy()
    predictor((array, AFFINE)).probabilities()
    assert np.array_equal(array, before)


def test_labels_turn_with_the_stored_axes_of_the_same_scan(predictor, array):
    plain = predictor((array, np.diag([1.0, 1.0, 1.0, 1.0]))).labels
    flipped_affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped_affine[0, 3] = array.shape[0] - 1
    flipped = predictor((array[::-1], flipped_affine)).labels
    assert np.array_equal(flipped[::-1], plain)


@pytest.mark.parametrize(
    ("scan", "error", "message"),
    [
        (3, UsageError, "scan must be a path, a Volume or .* got int"),
        ("absent.nii.gz", UsageError, "absent.nii.gz"),
        ((np.zeros((4, 5)), np.eye(4)), GeometryError, r"array must .* 3 axes .* \(4, 5\)"),
        ((np.zeros((4, 5, 6), complex), np.eye(4)), GeometryError, "complex128"),
        ((np.zeros((4, 5, 6)), np.zeros((4, 4))), GeometryError, "affine"),
        ((np.full((4, 5, 6), np.nan), np.eye(4)), IntensityError, "finite"),
    ],
)
def test_what_is_no_scan_is_refused(predictor, scan, error, message):
    with pytest.raises(error, match=message):
        predictor(scan)


def test_constant_scan_has_labels(predictor):
    with pytest.warns(Warning, match="Divide by zero"):  # MONAI's, about the percentiles
        assert predictor((np.zeros((6, 7, 8)), np.eye(4))).labels.shape == (6, 7, 8)


def test_labels_are_those_that_the_command_writes(predictor, run, write_scan, tmp_path):
    path = write_scan(affine=AFFINE)
    run("predict", "hippocampus_mr_segmentation", path, "-o", tmp_path / "out", "--device", "cpu")
    written = np.asarray(nib.load(tmp_path / "out" / "scan" / "labels.nii.gz").dataobj)
    assert np.array_equal(written, predictor(path).labels)
