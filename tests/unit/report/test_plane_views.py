"""Which slices are shown, and which way round."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vol3d.errors import DataError, GeometryError
from vol3d.geometry import VolumeGeometry
from vol3d.report.plane_views import PlaneView, Window, cut_planes, obliquity_degrees

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (20, 30, 16)
AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])
ALL_CODES = [
    "".join(letters) for order in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*order)
]


def ras_volume() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE)


def ras_labels() -> np.ndarray:
    """Label 1 to the right (large x), in front (large y) and above (large z)."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[14:18, 20:28, 10:14] = 1
    return labels


def reorient(array: np.ndarray, codes: str) -> tuple[np.ndarray, VolumeGeometry]:
    """The same scan stored in another axis order, by nibabel."""
    image = nib.Nifti1Image(array, AFFINE)
    transform = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = image.as_reoriented(transform)
    return np.asarray(turned.dataobj), VolumeGeometry(turned.shape, turned.affine)


def by_name(views: list[PlaneView]) -> dict[str, PlaneView]:
    return {view.name: view for view in views}


def test_axial_slice_has_the_right_side_on_the_left_and_anterior_up() -> None:
    views = by_name(cut_planes(ras_volume(), ras_labels(), VolumeGeometry(SHAPE, AFFINE)))
    rows, columns = np.nonzero(views["axial"].labels)
    assert views["axial"].edges == "RLPA"
    # x 14..17 of 20 runs to the right, so from the left of the picture these are columns 2..5; rows go up with y.
    assert (columns.min(), columns.max()) == (2, 5)
    assert (rows.min(), rows.max()) == (20, 27)


def test_coronal_slice_has_the_right_side_on_the_left_and_superior_up() -> None:
    view = by_name(cut_planes(ras_volume(), ras_labels(), VolumeGeometry(SHAPE, AFFINE)))["coronal"]
    rows, columns = np.nonzero(view.labels)
    assert view.edges == "RLIS"
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (2, 5, 10, 13)


def test_sagittal_slice_has_anterior_on_the_left_and_superior_up() -> None:
    view = by_name(cut_planes(ras_volume(), ras_labels(), VolumeGeometry(SHAPE, AFFINE)))["sagittal"]
    rows, columns = np.nonzero(view.labels)
    assert view.edges == "APIS"
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (2, 9, 10, 13)


@pytest.mark.parametrize("codes", ALL_CODES)
def test_every_storage_order_of_a_scan_gives_the_same_pictures(codes: str) -> None:
    expected = cut_planes(ras_volume(), ras_labels(), VolumeGeometry(SHAPE, AFFINE))
    volume, geometry = reorient(ras_volume(), codes)
    labels, _ = reorient(ras_labels(), codes)
    assert geometry.axis_codes == codes
    for view, twin in zip(cut_planes(volume, labels, geometry), expected, strict=True):
        np.testing.assert_array_equal(view.image, twin.image)
        np.testing.assert_array_equal(view.labels, twin.labels)
        assert (view.edges, view.pixel_mm, view.window) == (twin.edges, twin.pixel_mm, twin.window)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASL", "IRP"])
def test_index_names_the_slice_in_the_order_of_the_array(codes: str) -> None:
    volume, geometry = reorient(ras_volume(), codes)
    labels, _ = reorient(ras_labels(), codes)
    for view in cut_planes(volume, labels, geometry):
        plane = volume.take(view.index, axis="ijk".index(view.index_name))
        assert sorted(plane.ravel()) == sorted(view.image.ravel())


def test_pixels_have_the_spacing_of_their_axes() -> None:
    views = by_name(cut_planes(ras_volume(), ras_labels(), VolumeGeometry(SHAPE, AFFINE)))
    assert views["axial"].pixel_mm == (2.0, 1.0)
    assert views["sagittal"].size_mm == (30.0, 48.0)


def test_slices_go_through_the_centre_of_mass() -> None:
    views = by_name(cut_planes(ras_volume(), ras_labels(), VolumeGeometry(SHAPE, AFFINE)))
    centers = {view.index_name: view.index for view in views.values()}
    # Centres of 14..17, 20..27 and 10..13 lie half-way between two slices.
    assert centers["i"] in (15, 16)
    assert centers["j"] in (23, 24)
    assert centers["k"] in (11, 12)


def test_two_sided_labels_are_not_shown_by_the_empty_slice_between_them() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:5, 10:20, 5:9] = 1
    labels[15:18, 10:20, 5:9] = 1
    views = by_name(cut_planes(ras_volume(), labels, VolumeGeometry(SHAPE, AFFINE)))
    assert all(view.labels.any() for view in views.values())


def test_without_labels_the_middle_is_shown_and_no_close_up() -> None:
    views = cut_planes(ras_volume(), np.zeros(SHAPE, dtype=np.uint8), VolumeGeometry(SHAPE, AFFINE))
    assert [view.window for view in views] == [None] * 3
    assert sorted((view.index_name, view.index) for view in views) == [("i", 9), ("j", 15), ("k", 8)]


def test_small_labels_have_a_close_up_that_holds_them_in_every_plane() -> None:
    shape = (100, 120, 90)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[70:80, 20:30, 60:66] = 1
    for view in cut_planes(np.random.default_rng(0).normal(size=shape), labels, VolumeGeometry(shape, np.eye(4))):
        assert view.window is not None
        assert view.window.side_mm == 40
        rows, columns = np.nonzero(view.labels)
        assert view.window.left_mm <= columns.min() < columns.max() + 1 <= view.window.left_mm + 40
        assert view.window.bottom_mm <= rows.min() < rows.max() + 1 <= view.window.bottom_mm + 40


def test_a_close_up_at_the_edge_of_the_volume_stays_inside() -> None:
    shape = (100, 100, 100)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[:4, :4, :4] = 1
    views = by_name(cut_planes(np.random.default_rng(0).normal(size=shape), labels, VolumeGeometry(shape, np.eye(4))))
    # The corner is left, posterior, inferior: right in the axial picture, and right in the sagittal one.
    assert views["axial"].window == Window(60.0, 0.0, 40.0)
    assert views["sagittal"].window == Window(60.0, 0.0, 40.0)


def test_labels_that_fill_the_volume_have_no_close_up() -> None:
    labels = np.ones(SHAPE, dtype=bool)
    assert cut_planes(ras_volume(), labels, VolumeGeometry(SHAPE, AFFINE))[0].window is None


def test_padding_is_cut_off_but_never_a_label() -> None:
    volume = np.full((60, 60, 60), -1000.0)
    volume[20:40, 20:40, 20:40] = ras_volume().max()
    labels = np.zeros(volume.shape, dtype=np.uint8)
    labels[30, 30, 10] = 1
    views = by_name(cut_planes(volume, labels, VolumeGeometry((60, 60, 60), np.eye(4))))
    # 20 voxels and one of rim on each side; downwards as far as the label.
    assert views["axial"].image.shape == (22, 22)
    assert views["coronal"].image.shape == (31, 22)
    assert views["axial"].index == 10


def test_a_volume_without_contrast_or_of_one_voxel_is_cut() -> None:
    for shape in ((1, 1, 1), (1, 30, 1), (5, 6, 7)):
        views = cut_planes(np.zeros(shape), np.ones(shape, dtype=np.uint8), VolumeGeometry(shape, np.eye(4)))
        assert [view.labels.min() for view in views] == [1, 1, 1]


def test_nan_voxels_do_not_widen_the_picture() -> None:
    volume = np.zeros((30, 30, 30))
    volume[10:20, 10:20, 10:20] = 1
    volume[0, 0, 0] = np.nan
    view = cut_planes(volume, np.zeros(volume.shape, dtype=np.uint8), VolumeGeometry(volume.shape, np.eye(4)))[0]
    assert view.image.shape == (12, 12)


def test_an_oblique_scan_is_cut_along_its_own_axes() -> None:
    affine = AFFINE.copy()
    affine[:3, :3] = Rotation.from_euler("x", 20, degrees=True).as_matrix() @ AFFINE[:3, :3]
    oblique = VolumeGeometry(SHAPE, affine)
    straight = VolumeGeometry(SHAPE, AFFINE)
    for view, twin in zip(
        cut_planes(ras_volume(), ras_labels(), oblique), cut_planes(ras_volume(), ras_labels(), straight), strict=True
    ):
        np.testing.assert_array_equal(view.image, twin.image)
    assert obliquity_degrees(oblique) == pytest.approx(20)
    assert obliquity_degrees(straight) == pytest.approx(0)


def test_shapes_and_types_that_do_not_fit_are_refused() -> None:
    geometry = VolumeGeometry(SHAPE, AFFINE)
    with pytest.raises(GeometryError, match=r"volume must have the shape of its geometry, got \(19, 30, 16\)"):
        cut_planes(ras_volume()[1:], ras_labels(), geometry)
    with pytest.raises(GeometryError, match=r"labels must have the shape of its geometry, got \(20, 30, 15\)"):
        cut_planes(ras_volume(), ras_labels()[..., 1:], geometry)
    with pytest.raises(DataError, match="labels must be integer, got float64"):
        cut_planes(ras_volume(), ras_labels().astype(float), geometry)


def test_right_parotid_of_a_real_scan_is_on_the_left_of_the_picture(real_data: Path) -> None:
    image = nib.load(real_data / "head_neck_ct" / "images" / "pt_100.nii.gz")
    labels = np.asarray(nib.load(real_data / "head_neck_ct" / "labels" / "pt_100.nii.gz").dataobj).astype(np.uint8)
    geometry = VolumeGeometry(image.shape, image.affine)
    assert geometry.axis_codes == "LPI"
    views = by_name(cut_planes(np.asarray(image.dataobj), labels, geometry))
    right, left, mandible, cord = (np.argwhere(views["axial"].labels == value) for value in (3, 4, 7, 2))
    assert right[:, 1].max() < left[:, 1].min()
    assert mandible[:, 0].mean() > cord[:, 0].mean()
    brainstem, esophagus = (np.argwhere(views["sagittal"].labels == value) for value in (1, 5))
    assert brainstem[:, 0].min() > esophagus[:, 0].max()
