"""HD95 and NSD against hand-computed cubes, a brute-force distance transform, and MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.errors import GeometryError, UsageError
from vol3d.metrics.surface import measure_surface_distances

Mask = NDArray[np.bool_]
SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0), (4.0, 2.5, 1.2)]


def blob(seed: int, shape: tuple[int, int, int] = (18, 20, 22)) -> Mask:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 2.5)
    return np.asarray(smooth > np.quantile(smooth, 0.8))


def cube(start: tuple[int, int, int], side: int = 4, shape: tuple[int, int, int] = (16, 16, 16)) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(s, s + side) for s in start)] = True
    return mask


def surfel_positions(mask: Mask) -> Mask:
    """2x2x2 neighbourhoods that are neither full nor empty, without codes, tables or crops."""
    padded = np.pad(mask, 1)
    low, high = ndimage.minimum_filter(padded, 2), ndimage.maximum_filter(padded, 2)
    return np.asarray(low != high)


def surfel_distances_by_edt(pred: Mask, label: Mask, spacing: tuple[float, float, float]) -> list[NDArray[np.float64]]:
    edges = surfel_positions(pred), surfel_positions(label)
    return [
        ndimage.distance_transform_edt(~edges[1], sampling=spacing)[edges[0]],
        ndimage.distance_transform_edt(~edges[0], sampling=spacing)[edges[1]],
    ]


def test_a_cube_moved_by_three_voxels_has_the_hand_computed_distance() -> None:
    distances = measure_surface_distances(cube((5, 2, 2)), cube((2, 2, 2)), (1.5, 1.0, 1.0))
    assert distances.hausdorff_mm(100) == pytest.approx(4.5)
    assert distances.hausdorff_mm(95) == pytest.approx(4.5)


def test_surface_area_of_a_box_is_its_faces_with_its_edges_and_corners_cut() -> None:
    # A 4x4x4 cube of 1 mm: 6 faces of 3x3 squares, 12 edges of 3 strips of sqrt(2)/2 each, and 8 corner
    # triangles, whose area in the marching-cubes table is sqrt(3)/8.
    distances = measure_surface_distances(cube((2, 2, 2)), cube((2, 2, 2)), (1.0, 1.0, 1.0))
    by_hand = 6 * 9 + 12 * 3 * math.sqrt(2) / 2 + 8 * math.sqrt(3) / 8
    assert distances.pred_areas_mm2.sum() == pytest.approx(by_hand, rel=1e-6)


def test_flat_faces_have_the_area_of_their_spacing() -> None:
    slab = np.zeros((40, 40, 6), dtype=bool)
    slab[2:-2, 2:-2, 2:4] = True
    areas = measure_surface_distances(slab, slab, (1.0, 2.0, 5.0)).pred_areas_mm2
    top = np.isclose(areas, 1.0 * 2.0)
    assert top.sum() >= 2 * 34 * 34


@pytest.mark.parametrize("spacing", SPACINGS)
def test_distances_equal_a_whole_volume_distance_transform(spacing: tuple[float, float, float]) -> None:
    pred, label = blob(1), blob(2)
    distances = measure_surface_distances(pred, label, spacing)
    expected = surfel_distances_by_edt(pred, label, spacing)
    np.testing.assert_allclose(np.sort(distances.pred_to_label_mm), np.sort(expected[0]), atol=1e-9)
    np.testing.assert_allclose(np.sort(distances.label_to_pred_mm), np.sort(expected[1]), atol=1e-9)
    assert distances.hausdorff_mm(100) == pytest.approx(max(map(np.max, expected)))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("tolerance_mm", [0.0, 1.0, 2.5])
def test_nsd_equals_monai_with_subvoxels(spacing: tuple[float, float, float], tolerance_mm: float) -> None:
    pred, label = blob(3), blob(4)
    expected = compute_surface_dice(
        torch.from_numpy(pred)[None, None],
        torch.from_numpy(label)[None, None],
        class_thresholds=[tolerance_mm],
        include_background=True,
        spacing=spacing,
        use_subvoxels=True,
    )
    actual = measure_surface_distances(pred, label, spacing).normalized_surface_dice(tolerance_mm)
    assert actual == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("spacing", SPACINGS)
def test_hd95_agrees_with_monai_to_a_voxel(spacing: tuple[float, float, float]) -> None:
    # MONAI's surface is the outermost voxels, each counted once; ours runs between voxels and counts area.
    pred, label = blob(5), blob(6)
    expected = compute_hausdorff_distance(
        torch.from_numpy(pred)[None, None],
        torch.from_numpy(label)[None, None],
        include_background=True,
        percentile=95,
        spacing=spacing,
    )
    actual = measure_surface_distances(pred, label, spacing).hausdorff_mm(95)
    assert actual == pytest.approx(float(expected), abs=max(spacing))


def test_hd95_leaves_out_five_percent_of_the_area_and_no_more() -> None:
    label = np.zeros((34, 34, 14), dtype=bool)
    label[2:32, 2:32, 2:8] = True
    pred = label.copy()
    pred[16, 16, 8:13] = True  # a spike: far below 5 percent of the surface
    distances = measure_surface_distances(pred, label, (1.0, 1.0, 1.0))
    assert distances.hausdorff_mm(100) == pytest.approx(5.0)
    assert distances.hausdorff_mm(95) == 0


def test_scores_do_not_change_when_prediction_and_reference_swap() -> None:
    forth = measure_surface_distances(blob(7), blob(8), (1.0, 1.0, 2.0))
    back = measure_surface_distances(blob(8), blob(7), (1.0, 1.0, 2.0))
    assert forth.hausdorff_mm() == back.hausdorff_mm()
    assert forth.normalized_surface_dice(1.0) == pytest.approx(back.normalized_surface_dice(1.0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scores_do_not_change_when_the_volume_is_flipped(axis: int) -> None:
    pred, label = blob(9), blob(10)
    plain = measure_surface_distances(pred, label, (1.0, 0.5, 2.0))
    flipped = measure_surface_distances(np.flip(pred, axis), np.flip(label, axis), (1.0, 0.5, 2.0))
    assert flipped.hausdorff_mm() == pytest.approx(plain.hausdorff_mm())
    assert flipped.normalized_surface_dice(1.0) == pytest.approx(plain.normalized_surface_dice(1.0))


def test_equal_masks_have_distance_zero_and_full_agreement_even_where_they_touch_the_border() -> None:
    mask = np.ones((3, 4, 5), dtype=bool)
    distances = measure_surface_distances(mask, mask, (1.0, 1.0, 1.0))
    assert distances.hausdorff_mm() == 0
    assert distances.normalized_surface_dice(0) == 1


def test_a_single_voxel_has_a_surface() -> None:
    distances = measure_surface_distances(cube((3, 3, 3), side=1), cube((3, 3, 5), side=1), (1.0, 1.0, 1.0))
    assert distances.hausdorff_mm(100) == pytest.approx(2.0)


def test_both_masks_empty_is_undefined() -> None:
    empty = np.zeros((4, 4, 4), dtype=bool)
    distances = measure_surface_distances(empty, empty, (1.0, 1.0, 1.0))
    assert math.isnan(distances.hausdorff_mm())
    assert math.isnan(distances.normalized_surface_dice(1.0))


def test_one_mask_empty_is_infinitely_far_and_without_agreement() -> None:
    empty, full = np.zeros((16, 16, 16), dtype=bool), cube((2, 2, 2))
    for pred, label in ((empty, full), (full, empty)):
        distances = measure_surface_distances(pred, label, (1.0, 1.0, 1.0))
        assert distances.hausdorff_mm() == math.inf
        assert distances.normalized_surface_dice(1.0) == 0


def test_a_spacing_with_the_rounding_of_a_header_does_not_change_nsd() -> None:
    label, pred = cube((2, 2, 2)), cube((3, 2, 2))
    exact = measure_surface_distances(pred, label, (1.0, 1.0, 1.0)).normalized_surface_dice(1.0)
    rounded = measure_surface_distances(pred, label, (1.0000001, 1.0, 1.0)).normalized_surface_dice(1.0)
    assert exact == 1
    assert rounded == 1


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)])
def test_a_spacing_that_is_not_three_positive_numbers_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError, match=r"spacing_mm must be 3 positive numbers"):
        measure_surface_distances(cube((1, 1, 1)), cube((1, 1, 1)), spacing)


def test_masks_of_different_shapes_and_labelmaps_are_refused() -> None:
    mask = cube((1, 1, 1))
    with pytest.raises(GeometryError, match=r"got \(15, 16, 16\) against \(16, 16, 16\)"):
        measure_surface_distances(mask[1:], mask, (1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match=r"label must be a bool mask, got int64"):
        measure_surface_distances(mask, mask.astype(np.int64), (1.0, 1.0, 1.0))


def test_a_percentile_or_tolerance_out_of_range_is_refused() -> None:
    distances = measure_surface_distances(cube((1, 1, 1)), cube((1, 1, 1)), (1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match=r"percentile .* got 0"):
        distances.hausdorff_mm(0)
    with pytest.raises(UsageError, match=r"tolerance_mm must be 0 or more, got -1"):
        distances.normalized_surface_dice(-1)
