from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vol3d.data.datalist import read_split
from vol3d.data.phantoms import ANTERIOR, POSTERIOR, make_phantom, write_phantom_dataset
from vol3d.data.volume_reader import read_volume
from vol3d.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("is_oblique", [False, True])
def test_the_labels_have_the_volume_and_the_center_of_the_ellipsoid(is_oblique: bool) -> None:
    phantom = make_phantom((48, 60, 40), (0.9, 1.1, 1.3), seed=2, is_oblique=is_oblique)
    inside = np.argwhere(phantom.label.array > 0)
    geometry = phantom.label.geometry
    # A voxelized ellipsoid of this size has its volume within 1 % and its centroid within a tenth of a voxel.
    assert len(inside) * geometry.voxel_volume_ml == pytest.approx(phantom.volume_ml, rel=0.01)
    np.testing.assert_allclose(geometry.to_world(inside).mean(axis=0), phantom.center_world, atol=0.1)


@pytest.mark.parametrize("is_oblique", [False, True])
def test_label_1_is_the_anterior_half(is_oblique: bool) -> None:
    phantom = make_phantom(is_oblique=is_oblique)
    y = [
        phantom.label.geometry.to_world(np.argwhere(phantom.label.array == label))[:, 1]
        for label in (ANTERIOR, POSTERIOR)
    ]
    assert y[0].min() > y[1].max()
    assert phantom.label.geometry.axis_codes == "RAS"


def test_the_same_seed_gives_the_same_phantom_and_another_another() -> None:
    first, again, other = make_phantom(seed=5), make_phantom(seed=5), make_phantom(seed=6)
    np.testing.assert_array_equal(first.image.array, again.image.array)
    assert first.radii_mm != other.radii_mm


def test_a_phantom_data_set_is_read_like_a_real_one(tmp_path: Path) -> None:
    folder = write_phantom_dataset(tmp_path / "set", num_training=2, num_validation=1, seed=4)
    assert [len(read_split(folder, split)) for split in ("training", "validation")] == [2, 1]
    for item in read_split(folder, "training"):
        image, label = read_volume(item["image"]), read_volume(item["label"])
        assert image.geometry.is_same_grid(label.geometry)
        assert image.array.dtype == np.float32
        assert set(np.unique(label.array)) == {0, 1, 2}
    with pytest.raises(OutputError, match="output must not exist yet"):
        write_phantom_dataset(folder, 1, 0)
