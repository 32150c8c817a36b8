from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from monai.transforms.utils import create_rotate

from vol3d.transforms.spatial_field import (
    SpatialField,
    cubic_basis,
    rotation_matrix,
    shear_matrix,
    spatial_field,
)


def field(
    roi: tuple[int, int, int] = (7, 8, 9),
    start: tuple[int, int, int] = (2, 3, 4),
    spacing: Any = (1, 1, 1),
    **drawn: Any,
) -> SpatialField:
    return spatial_field(roi, {"start_vox": list(start), "spacing_mm": list(spacing), "spatial": drawn})


def test_without_operations_every_voxel_reads_its_own_place() -> None:
    plain = field()
    assert plain.is_on_grid
    np.testing.assert_array_equal(plain.coordinates()[:, 0, 0, 0], [2, 3, 4])
    np.testing.assert_array_equal(plain.coordinates()[:, -1, -1, -1], [8, 10, 12])


def test_the_identity_stays_exact_for_any_spacing() -> None:
    assert field(spacing=(0.1, 0.7, 3.3)).is_on_grid
    assert field(spacing=(0.1, 0.7, 3.3), flip_axes=[0, 2]).is_on_grid


def test_a_flip_reads_the_same_voxels_backwards() -> None:
    np.testing.assert_array_equal(field(flip_axes=[1]).coordinates(), field().coordinates()[:, :, ::-1])


def test_the_rotation_is_that_of_monai() -> None:
    degrees = (20.0, -35.0, 50.0)
    np.testing.assert_allclose(rotation_matrix(degrees), create_rotate(3, np.radians(degrees))[:3, :3], atol=1e-12)


def test_a_shear_moves_one_axis_in_proportion_to_another() -> None:
    step = field(spacing=(1, 2, 4), shear=[0.1, 0, 0, 0, 0, 0.5]).matrix
    # 1 voxel along W is 2 mm and shifts H by 0.2 mm = 0.2 voxel, D by 1 mm = 0.25 voxel.
    np.testing.assert_allclose(step[:, 1], [0.2, 1, 0.25], atol=1e-12)
    np.testing.assert_allclose(shear_matrix([1, 2, 3, 4, 5, 6]), [[1, 1, 2], [3, 1, 4], [5, 6, 1]])


def test_all_operations_keep_the_center_of_the_patch_except_a_translation() -> None:
    drawn = {"rotation_degrees": [10, 20, 30], "scale": [0.8, 1.2, 1.1], "shear": [0.1] * 6, "flip_axes": [0]}
    center = field(**drawn).coordinates()[:, 3, 3:5, 4].mean(axis=1)
    np.testing.assert_allclose(center, [2 + 3, 3 + 3.5, 4 + 4], atol=1e-12)
    moved = field(**drawn, translation_vox=[1.5, 0, -2]).coordinates()[:, 3, 3:5, 4].mean(axis=1)
    np.testing.assert_allclose(center - moved, [1.5, 0, -2], atol=1e-12)


def test_a_quarter_turn_of_an_anisotropic_volume_is_a_turn_in_the_world() -> None:
    # Voxels of 1 x 4 mm: a step of one voxel along H (1 mm) becomes a quarter of a voxel along W.
    turned = field(spacing=(1, 4, 2), rotation_degrees=[0, 0, 90])
    steps = turned.matrix
    np.testing.assert_allclose(steps[:, 0], [0, 0.25, 0], atol=1e-12)
    np.testing.assert_allclose(steps[:, 1], [-4, 0, 0], atol=1e-12)
    np.testing.assert_allclose(steps[:, 2], [0, 0, 1], atol=1e-12)


def test_distances_in_mm_survive_any_rotation_of_an_anisotropic_volume() -> None:
    spacing = np.array([0.7, 0.7, 5.0])
    source = field(spacing=spacing, rotation_degrees=[25, -40, 70]).coordinates().reshape(3, -1).T
    plain = field(spacing=spacing).coordinates().reshape(3, -1).T
    before = np.linalg.norm((plain - plain[0]) * spacing, axis=1)
    after = np.linalg.norm((source - source[0]) * spacing, axis=1)
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_scale_two_shows_anatomy_twice_as_large() -> None:
    source = field(scale=[2.0, 2.0, 2.0]).coordinates()
    np.testing.assert_allclose(source[0, -1] - source[0, 0], (7 - 1) / 2)


def test_affine_operations_match_simpleitk() -> None:
    spacing = np.array([1.0, 1.5, 2.5])
    degrees, scale, shift = (15.0, -10.0, 25.0), np.array([1.2, 0.9, 1.1]), np.array([1.0, -2.0, 0.5])
    turned = field(spacing=spacing, rotation_degrees=degrees, scale=scale.tolist(), translation_vox=shift.tolist())
    center = (np.array([2, 3, 4]) + (np.array([7, 8, 9]) - 1) / 2) * spacing
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((rotation_matrix(degrees) @ np.diag(1 / scale)).ravel().tolist())
    transform.SetCenter(center.tolist())
    transform.SetTranslation((-shift * spacing).tolist())
    for index in [(0, 0, 0), (6, 0, 8), (3, 7, 2)]:
        point = np.add(index, (2, 3, 4)) * spacing
        expected = np.array(transform.TransformPoint(point.tolist())) / spacing
        np.testing.assert_allclose(turned.coordinates()[(slice(None), *index)], expected, atol=1e-9)


def test_cubic_basis_sums_to_one_and_reproduces_a_straight_line() -> None:
    basis = cubic_basis(23, step=4.7)
    np.testing.assert_allclose(basis.sum(axis=1), 1, atol=1e-12)
    assert basis.min() >= 0
    knots = (np.arange(basis.shape[1]) - 1) * 4.7
    np.testing.assert_allclose(basis @ knots, np.arange(23), atol=1e-9)


def test_elastic_displacement_matches_the_b_splines_of_simpleitk() -> None:
    roi, step = (13, 11, 12), 4.0
    elastic = {"displacement_mm": 1.5, "control_spacing_mm": step, "seed": 99}
    bent = field(roi, start=(0, 0, 0), elastic=elastic)
    assert bent.control is not None
    mesh = [n - 3 for n in bent.control.shape[1:]]
    transform = sitk.BSplineTransform(3, 3)
    transform.SetTransformDomainOrigin([0.0, 0.0, 0.0])
    transform.SetTransformDomainPhysicalDimensions([n * step for n in mesh])
    transform.SetTransformDomainMeshSize(mesh)
    transform.SetParameters(np.concatenate([c.ravel(order="F") for c in bent.control]).tolist())
    source = bent.coordinates()
    for index in [(0, 0, 0), (5, 6, 7), (12, 10, 11), (1, 9, 3)]:
        expected = transform.TransformPoint([float(i) for i in index])
        np.testing.assert_allclose(source[(slice(None), *index)], expected, atol=1e-9)


def test_elastic_displacement_is_bounded_in_mm_on_every_axis() -> None:
    spacing = np.array([1.0, 1.0, 4.0])
    elastic = {"displacement_mm": 3.0, "control_spacing_mm": 10.0, "seed": 5}
    moved = field((20, 20, 20), spacing=spacing, elastic=elastic).coordinates()
    shift_mm = (moved - field((20, 20, 20), spacing=spacing).coordinates()) * spacing[:, None, None, None]
    assert np.abs(shift_mm).max() < 3.0
    assert np.abs(shift_mm).max() > 1.0


def test_the_strongest_elastic_deformation_allowed_does_not_fold() -> None:
    for seed in range(5):
        elastic = {"displacement_mm": 0.4 * 8, "control_spacing_mm": 8.0, "seed": seed}
        source = field((24, 24, 24), elastic=elastic).coordinates()
        jacobian = np.stack(np.gradient(source, axis=(1, 2, 3)), axis=-1)
        assert np.linalg.det(np.moveaxis(jacobian, 0, -2)).min() > 0


@pytest.mark.parametrize("start", [(2, 3, 4), (-20, 3, 4), (500, 500, 500)])
def test_the_source_box_holds_all_neighbors_that_are_read(start: tuple[int, int, int]) -> None:
    shape = (30, 30, 30)
    turned = field(
        start=start, rotation_degrees=[10, 20, 30], elastic={"displacement_mm": 3, "control_spacing_mm": 9, "seed": 1}
    )
    source = turned.coordinates().reshape(3, -1)
    for (first, end), low, high in zip(turned.source_box(shape), source.min(1), source.max(1), strict=True):
        assert 0 <= first < end <= 30
        assert first <= min(max(np.floor(low), 0), 29)
        assert end > max(min(np.ceil(high), 29), 0)
