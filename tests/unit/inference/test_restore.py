"""Restoring labels and maps to the scan's grid: against MONAI's Invertd, SciPy and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Invertd, Orientationd, ResizeWithPadOrCropd, Spacingd
from scipy.ndimage import map_coordinates

from vol3d.errors import GeometryError, UsageError
from vol3d.geometry import VolumeGeometry
from vol3d.inference.grid_map import GridMap
from vol3d.inference.output_maps import OutputMaps, allocate_maps
from vol3d.inference.restore import SlabRestorer
from vol3d.inference.sliding_window import FusedSlab, StreamingSlidingWindowInferer

ALL_MAPS = ("labels", "top_probability", "entropy", "probabilities")


def restore(values: torch.Tensor, grid_map: GridMap, maps: OutputMaps, axis: int = 2, **options: Any) -> OutputMaps:
    """Send ``values`` through slabs of a stream whose network is the identity."""
    restorer = SlabRestorer(grid_map, maps, **options)
    inferer = StreamingSlidingWindowInferer((5, 6, 4), overlap=0.3, mode="constant", slab_axis=axis)
    if min(values.shape[1:]) >= 12:
        inferer.memory_bytes = int(inferer.plan(values.shape[1:]).fusion_bytes(len(values)) * 0.6)
    for slab in inferer.stream(values, lambda x: x):
        restorer.add(slab)
    return maps


def smooth_logits(shape: tuple[int, ...], channels: int = 4, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(1, channels, *[max(n // 3, 1) for n in shape], generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, shape, mode="trilinear")[0]


def interpolated(values: torch.Tensor, grid_map: GridMap) -> np.ndarray:
    """SciPy's linear interpolation at the position of every scan voxel, the border repeated."""
    index = np.indices(grid_map.scan_shape).reshape(3, -1)
    position = grid_map.affine[:3, :3] @ index + grid_map.affine[:3, 3:]
    channels = [map_coordinates(v, position, order=1, mode="nearest") for v in values.double().numpy()]
    return np.stack(channels).reshape(len(values), *grid_map.scan_shape)


def assert_equal_away_from_ties(labels: np.ndarray, logits: np.ndarray) -> None:
    ordered = np.sort(logits, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(labels[clear], logits.argmax(axis=0)[clear])


ALIGNED = {
    "same grid": np.eye(4),
    "finer scan": np.diag([0.5, 0.4, 0.7, 1.0]),
    "coarser scan": np.diag([1.7, 1.3, 1.1, 1.0]),
    "flipped and shifted": np.array([[-0.6, 0, 0, 11.2], [0, -1, 0, 12], [0, 0, 0.5, 0.25], [0, 0, 0, 1]]),
    "permuted": np.array([[0, 0.8, 0, 0.1], [0, 0, -0.9, 12.5], [1.2, 0, 0, -0.3], [0, 0, 0, 1]]),
}
OBLIQUE = np.array([[0.62, 0.21, -0.1, 0.3], [-0.2, 0.64, 0.13, 1.9], [0.11, -0.08, 0.71, 0.4], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", [*ALIGNED, "oblique"])
def test_labels_are_those_of_interpolated_logits(name: str, axis: int) -> None:
    values = smooth_logits((12, 13, 14))
    grid_map = GridMap((13, 15, 11), (12, 13, 14), ALIGNED.get(name, OBLIQUE))
    maps = restore(values, grid_map, allocate_maps(grid_map.scan_shape, 4), axis)
    expected = interpolated(values, grid_map)
    index = np.indices(grid_map.scan_shape).reshape(3, -1)
    position = (grid_map.affine[:3, :3] @ index + grid_map.affine[:3, 3:]).reshape(3, *grid_map.scan_shape)
    is_seen = ((position > -1) & (position < np.array([12, 13, 14])[:, None, None, None])).all(axis=0)
    assert is_seen.mean() > 0.3
    assert not maps.labels[~is_seen].any()
    assert_equal_away_from_ties(maps.labels[is_seen], expected[:, is_seen])


@pytest.mark.parametrize("affine", [ALIGNED["finer scan"], ALIGNED["permuted"], OBLIQUE])
def test_maps_are_softmax_maximum_and_entropy_of_interpolated_logits(affine: np.ndarray) -> None:
    values = smooth_logits((12, 13, 14))
    grid_map = GridMap((9, 10, 11), (12, 13, 14), affine)
    maps = restore(values, grid_map, allocate_maps(grid_map.scan_shape, 4, wanted=ALL_MAPS))
    logits = interpolated(values, grid_map)
    expected = np.exp(logits) / np.exp(logits).sum(axis=0)
    is_seen = maps.entropy > 0
    np.testing.assert_allclose(maps.probabilities[:, is_seen], expected[:, is_seen], atol=2e-5)
    np.testing.assert_allclose(maps.top_probability[is_seen], expected.max(axis=0)[is_seen], atol=2e-5)
    entropy = -(expected * np.log(expected)).sum(axis=0)
    np.testing.assert_allclose(maps.entropy[is_seen], entropy[is_seen], atol=5e-5)
    assert_equal_away_from_ties(maps.labels[is_seen], logits[:, is_seen])
    np.testing.assert_array_equal(maps.probabilities[0][~is_seen], 1)


@pytest.mark.parametrize("wanted", [("labels",), ALL_MAPS])
@pytest.mark.parametrize("affine", [ALIGNED["flipped and shifted"], OBLIQUE])
def test_small_chunks_change_nothing(affine: np.ndarray, wanted: tuple[str, ...]) -> None:
    values = smooth_logits((12, 13, 14))
    grid_map = GridMap((13, 15, 11), (12, 13, 14), affine)
    whole = restore(values, grid_map, allocate_maps(grid_map.scan_shape, 4, wanted=wanted))
    chunked = restore(values, grid_map, allocate_maps(grid_map.scan_shape, 4, wanted=wanted), chunk_bytes=700)
    for name in wanted:
        # Vectorised functions round the rest of a short chunk differently.
        np.testing.assert_allclose(getattr(whole, name), getattr(chunked, name), atol=1e-6)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (0.7, 1.1, 1.9), (3.0, 0.9, 4.2)])
@pytest.mark.parametrize("diagonal", [(1.0, 1.2, 2.5), (-1.0, -1.2, 2.5)])
def test_labels_equal_those_of_monai_invertd(spacing_mm: Any, diagonal: Any) -> None:
    affine = torch.tensor(np.diag([*diagonal, 1.0]))
    affine[:3, 3] = torch.tensor([-30.0, 12.0, 7.5])
    scan = MetaTensor(torch.zeros(1, 21, 18, 13), affine=affine)
    scan[:, 6:16, 4:14, 2:10] = 1
    forward = Compose(
        [
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=spacing_mm, mode="bilinear"),
            CropForegroundd("image", source_key="image", margin=1, allow_smaller=True),
        ]
    )
    prepared = forward({"image": scan.clone()})
    image = prepared["image"]
    logits = smooth_logits(tuple(image.shape[1:]), seed=3)
    # MONAI's inverse of the crop fills logits with zeros, so that class 0 wins there.
    prepared["pred"] = MetaTensor(logits, meta=image.meta)
    invert = Invertd("pred", forward, orig_keys="image", nearest_interp=False, to_tensor=True)
    theirs = invert(prepared)["pred"].numpy()

    geometry = [VolumeGeometry(tuple(v.shape[1:]), np.asarray(v.affine)) for v in (scan, image)]
    grid_map = GridMap.between(*geometry)
    assert grid_map.lines is not None
    maps = restore(logits, grid_map, allocate_maps(grid_map.scan_shape, 4))
    ordered = np.sort(theirs, axis=0)
    # One voxel outside the crop MONAI's logits shrink towards zero: their order holds but their gaps do not.
    clear = (ordered[-1] - ordered[-2] > 1e-3) | (np.abs(theirs).max(axis=0) == 0)
    # Exactly one voxel outside the crop they are rounding noise, which MONAI decides by chance.
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(maps.labels[clear], theirs.argmax(axis=0)[clear])


def test_a_scan_padded_for_the_network_comes_back_whole() -> None:
    scan = MetaTensor(torch.randn(1, 6, 9, 7), affine=torch.eye(4, dtype=torch.float64))
    padded = ResizeWithPadOrCropd("image", spatial_size=(10, 8, 12))({"image": scan})["image"]
    values = torch.cat([torch.zeros(1, *padded.shape[1:]), padded.as_tensor()])
    geometry = [VolumeGeometry(tuple(v.shape[1:]), np.asarray(v.affine)) for v in (scan, padded)]
    maps = restore(values, GridMap.between(*geometry), allocate_maps((6, 9, 7), 2))
    expected = (scan[0] > 0).numpy()
    np.testing.assert_array_equal(maps.labels[:, :8], expected[:, :8])
    # The crop along the second axis took the last row, which the network never saw.
    assert not maps.labels[:, 8].any()


def test_what_was_cropped_before_resampling_stays_background() -> None:
    grid_map = GridMap((8, 8, 8), (4, 4, 4), np.diag([0.5, 0.5, 0.5, 1.0]), scan_box=((2, 6), (0, 8), (1, 8)))
    values = torch.stack([torch.zeros(4, 4, 4), torch.ones(4, 4, 4)])
    maps = restore(values, grid_map, allocate_maps((8, 8, 8), 2))
    expected = np.zeros((8, 8, 8))
    expected[2:6, 0:8, 1:8] = 1
    np.testing.assert_array_equal(maps.labels, expected)


@pytest.mark.parametrize("is_probability", [False, True])
def test_masks_by_threshold_are_independent_of_each_other(is_probability: bool) -> None:
    logits = smooth_logits((12, 13, 14), channels=2)
    values = logits.sigmoid() if is_probability else logits
    grid_map = GridMap((12, 13, 14), (12, 13, 14), np.eye(4))
    wanted = allocate_maps(grid_map.scan_shape, 2, decision="threshold", wanted=ALL_MAPS)
    maps = restore(values, grid_map, wanted, is_probability=is_probability)
    np.testing.assert_array_equal(maps.labels, (logits > 0).numpy())
    probability = logits.sigmoid()
    np.testing.assert_allclose(maps.probabilities, probability, atol=1e-6)
    np.testing.assert_allclose(maps.top_probability, torch.maximum(probability, 1 - probability).amin(0), atol=1e-6)
    entropy = torch.special.entr(probability) + torch.special.entr(1 - probability)
    np.testing.assert_allclose(maps.entropy, entropy.sum(0), atol=1e-5)


def test_a_scan_that_lies_elsewhere_is_background() -> None:
    far = np.eye(4)
    far[:3, 3] = 100
    for affine in (far, OBLIQUE @ far):
        maps = restore(torch.ones(2, 12, 13, 14), GridMap((5, 5, 5), (12, 13, 14), affine), allocate_maps((5, 5, 5), 2))
        assert not maps.labels.any()


@pytest.mark.parametrize("scan_shape", [(1, 1, 1), (1, 30, 2)])
def test_scans_with_one_voxel_axes_are_restored(scan_shape: Any) -> None:
    values = smooth_logits((12, 13, 14))
    grid_map = GridMap(scan_shape, (12, 13, 14), np.diag([0.4, 0.4, 0.4, 1.0]))
    maps = restore(values, grid_map, allocate_maps(scan_shape, 4))
    assert_equal_away_from_ties(maps.labels, interpolated(values, grid_map))


def test_many_classes_do_not_wrap_around() -> None:
    values = torch.zeros(300, 3, 3, 3)
    values[299] = 1
    slab = FusedSlab(values, ((0, 3),) * 3, ((0, 3),) * 3)
    maps = allocate_maps((3, 3, 3), 300)
    SlabRestorer(GridMap((3, 3, 3), (3, 3, 3), np.eye(4)), maps).add(slab)
    assert maps.labels.dtype == np.uint16
    assert (maps.labels == 299).all()


def test_a_singular_map_is_refused() -> None:
    with pytest.raises(GeometryError, match="affine must be an invertible 4x4 matrix, got"):
        GridMap((3, 3, 3), (3, 3, 3), np.zeros((4, 4)))


def test_unknown_maps_and_decisions_are_refused() -> None:
    with pytest.raises(UsageError, match=r"wanted must name .* got \['variance'\]"):
        allocate_maps((3, 3, 3), 2, wanted=("variance",))
    with pytest.raises(UsageError, match="decision must be one of argmax, threshold, got 'max'"):
        OutputMaps(decision="max")
