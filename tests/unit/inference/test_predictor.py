"""From a scan in any orientation to labels on its own grid, with a network whose answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer
from monai.transforms import Activationsd, AsDiscreted, Compose, Invertd, Orientationd, Spacingd

from vol3d.data.phantoms import make_phantom
from vol3d.data.volume import Volume
from vol3d.data.volume_writer import write_volume
from vol3d.errors import GeometryError, IntensityError, UsageError
from vol3d.geometry import VolumeGeometry
from vol3d.inference.predictor import VolumePredictor, label_volumes_ml

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {1: "low", 2: "high"}


class Levels(torch.nn.Module):
    """Class 0 below 1.5, class 1 below 3.5, else class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(image.shape))
        levels = torch.tensor([0.0, 3.0, 4.0]).reshape(1, 3, 1, 1, 1)
        return -100 * (image - levels).abs()


def predictor(spacing_mm: float | None = None) -> VolumePredictor:
    steps: list[Any] = [Orientationd(keys="image", axcodes="RAS", labels=None)]
    if spacing_mm is not None:
        steps.append(Spacingd(keys="image", pixdim=[spacing_mm] * 3, mode="bilinear"))
    preprocessing = Compose(steps)
    restore = Compose(
        [
            Activationsd(keys="pred", softmax=True),
            Invertd(keys="pred", transform=preprocessing, orig_keys="image", nearest_interp=False),
        ]
    )
    return VolumePredictor(
        Levels().eval(),
        preprocessing,
        SimpleInferer(),
        restore,
        Compose([AsDiscreted(keys="pred", argmax=True)]),
        NAMES,
    )


def blocks() -> np.ndarray[Any, Any]:
    array = np.zeros((8, 10, 6), dtype=np.float32)
    array[2:5, 1:7, 2:4] = 3
    array[5:6, 4:9, 1:5] = 4
    return array


def expected_labels() -> np.ndarray[Any, Any]:
    return np.select([blocks() == 3, blocks() == 4], [1, 2], 0)


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1, 1, 1]),
        np.diag([-2.0, -1, 3, 1]),
        np.array([[0, 0, 2.0, 5], [-1, 0, 0, 3], [0, 1.5, 0, -9], [0, 0, 0, 1]]),
        np.array([[0.98, -0.17, 0, 0], [0.17, 0.98, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1.0]]),
    ],
    ids=["RAS", "negative and anisotropic", "permuted", "oblique"],
)
def test_labels_lie_on_the_scans_own_grid(affine: np.ndarray[Any, Any]) -> None:
    result = predictor()((blocks(), affine))
    np.testing.assert_array_equal(result.labels, expected_labels())
    np.testing.assert_array_equal(result.geometry.affine, affine)
    assert result.labels.dtype == np.uint8


def test_the_network_sees_its_own_orientation_and_spacing() -> None:
    bundle = predictor(spacing_mm=1.0)
    affine = np.array([[0, 0, 2.0, 0], [-1, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])  # PSR, 1 x 1 x 2 mm
    result = bundle((blocks(), affine))
    assert bundle.network.seen == [(1, 1, 11, 8, 10)]
    assert result.labels.shape == (8, 10, 6)


def test_volumes_are_counted_in_millilitres() -> None:
    result = predictor()((blocks(), np.diag([2.0, 1, 3, 1])))
    assert result.volumes_ml == {"low": pytest.approx(3 * 6 * 2 * 0.006), "high": pytest.approx(5 * 4 * 0.006)}


def test_an_absent_label_has_volume_zero() -> None:
    geometry = VolumeGeometry((2, 2, 2), np.eye(4))
    assert label_volumes_ml(np.zeros((2, 2, 2), np.uint8), geometry, NAMES) == {"low": 0.0, "high": 0.0}


def test_probabilities_come_on_demand_and_agree_with_the_labels() -> None:
    result = predictor()((blocks(), np.diag([-1.0, 1, 1, 1])))
    probabilities = result.probabilities()
    assert probabilities.shape == (3, 8, 10, 6)
    assert probabilities.dtype == np.float32
    np.testing.assert_array_equal(probabilities.argmax(axis=0), result.labels)


def test_a_file_a_volume_and_an_array_give_the_same(tmp_path: Path) -> None:
    phantom = make_phantom((12, 10, 9), is_oblique=True)
    scaled = Volume(phantom.image.array / 60, phantom.image.geometry)
    write_volume(tmp_path / "scan.nii.gz", scaled.array, scaled.geometry)
    bundle = predictor()
    results = [bundle(tmp_path / "scan.nii.gz"), bundle(scaled), bundle((scaled.array, scaled.geometry.affine))]
    for result in results[1:]:
        np.testing.assert_array_equal(result.labels, results[0].labels)
    assert results[0].labels.any()


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64, ">f4"])
def test_any_type_of_voxel_is_taken(dtype: Any) -> None:
    result = predictor()((blocks().astype(dtype), np.eye(4)))
    np.testing.assert_array_equal(result.labels, expected_labels())


def test_a_scan_of_one_slice_is_taken() -> None:
    assert predictor()((np.full((5, 4, 1), 3.0), np.eye(4))).labels.tolist() == np.ones((5, 4, 1)).tolist()


def test_seconds_name_the_stages() -> None:
    assert list(predictor()((blocks(), np.eye(4))).seconds) == ["read", "preprocess", "network", "restore"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_voxels_that_are_not_finite_are_refused(value: float) -> None:
    array = blocks().astype(np.float64)
    array[1, 2, 3] = value
    with pytest.raises(IntensityError, match="must"):
        predictor()((array, np.eye(4)))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4, 2)])
def test_an_array_that_is_not_3d_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="3 axes H W D") as caught:
        predictor()((np.zeros(shape), np.eye(4)))
    assert str(shape) in str(caught.value)


def test_a_singular_affine_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"spacing must be positive, got \[1.0, 0.0, 1.0\]"):
        predictor()((blocks(), np.diag([1.0, 0, 1, 1])))


def test_anything_else_is_refused_by_its_type() -> None:
    with pytest.raises(UsageError, match="got ndarray"):
        predictor()(blocks())  # type: ignore[arg-type]


def test_a_bundle_that_does_not_bring_its_labels_back_is_refused() -> None:
    bundle = predictor(spacing_mm=0.5)
    broken = VolumePredictor(
        bundle.network, bundle.preprocessing, bundle.inferer, Compose([]), bundle.decide, bundle.class_names
    )
    with pytest.raises(GeometryError, match="must invert its preprocessing"):
        broken((blocks(), np.eye(4)))
