"""Both sides of a scan: cropped by world coordinates, predicted apart, pasted back together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vol3d.data.volume import Volume
from vol3d.errors import GeometryError
from vol3d.geometry import VolumeGeometry
from vol3d.inference.bilateral import BilateralPredictor, Side
from vol3d.inference.predictor import SegmentationResult

SHAPE = (20, 12, 10)


class Threshold:
    """Labels 1 where the crop is above 0, 2 above 5; remembers its crops."""

    def __init__(self) -> None:
        self.class_names = {1: "front", 2: "back"}
        self.crops: list[Volume] = []

    def __call__(self, scan: Volume) -> SegmentationResult:
        self.crops.append(scan)
        labels = np.digitize(scan.array, [0.5, 5.5]).astype(np.uint8)
        return SegmentationResult(scan, labels, {}, {"network": 1.0}, lambda: None)


def scan(affine: np.ndarray[Any, Any]) -> Volume:
    """Markers at two world positions, on a grid that is centered on the world's origin."""
    array = np.zeros(SHAPE, dtype=np.float32)
    shifted = affine.copy()
    shifted[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    geometry = VolumeGeometry(SHAPE, shifted)
    for world, value in (((-5.5, 0.5, 0.5), 1), ((-4.5, 0.5, 0.5), 9), ((5.5, 0.5, 0.5), 1)):
        i, j, k = np.rint(geometry.to_voxel(np.array(world))).astype(int)
        array[i, j, k] = value
    return Volume(array, geometry)


def both(crop_mm: tuple[float, float, float] = (8, 6, 6)) -> BilateralPredictor:
    left = Side("left", Threshold(), (-5.0, 0.0, 0.0))  # type: ignore[arg-type]
    right = Side("right", Threshold(), (5.0, 0.0, 0.0))  # type: ignore[arg-type]
    return BilateralPredictor((left, right), crop_mm)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)], ids=["RAS", "LPS", "RPI"])
def test_labels_of_each_side_lie_where_they_were_found(signs: tuple[int, int, int]) -> None:
    volume = scan(np.diag([*signs, 1.0]))
    result = both()(volume)
    assert result.labels.shape == SHAPE
    for value, world in ((1, (-5.5, 0.5, 0.5)), (2, (-4.5, 0.5, 0.5)), (3, (5.5, 0.5, 0.5))):
        (place,) = np.argwhere(result.labels == value)
        np.testing.assert_allclose(volume.geometry.to_world(place), world)


def test_names_of_the_second_side_follow_those_of_the_first() -> None:
    assert both().class_names == {1: "left front", 2: "left back", 3: "right front", 4: "right back"}


def test_volumes_are_those_of_each_side() -> None:
    result = both()(scan(np.diag([1.0, 1, 1, 1])))
    assert result.volumes_ml == pytest.approx(
        {"left front": 0.001, "left back": 0.001, "right front": 0.001, "right back": 0.0}
    )


def test_crops_have_the_asked_extent_and_their_own_place_in_the_world() -> None:
    predictor = both((8, 6, 4))
    volume = scan(np.diag([1.0, 1, 1, 1]))
    predictor(volume)
    for side in predictor.sides:
        (crop,) = side.predictor.crops  # type: ignore[attr-defined]
        assert crop.array.shape == (8, 6, 4)
        middle = crop.geometry.to_world((np.array(crop.array.shape) - 1) / 2)
        assert np.abs(middle - side.center_world).max() <= 0.5


def test_seconds_are_summed_over_the_sides() -> None:
    assert both()(scan(np.diag([1.0, 1, 1, 1]))).seconds["network"] == 2.0


def test_a_side_outside_the_scan_is_refused_by_name() -> None:
    with pytest.raises(GeometryError, match="must contain the left crop around"):
        both((14, 6, 6))(scan(np.diag([1.0, 1, 1, 1])))


def test_probabilities_of_two_sides_are_refused() -> None:
    with pytest.raises(GeometryError, match="must come from one crop"):
        both()(scan(np.diag([1.0, 1, 1, 1]))).probabilities()
