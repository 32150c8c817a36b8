from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from vol3d.errors import GeometryError
from vol3d.transforms import resample as resample_module
from vol3d.transforms import trilinear_kernel
from vol3d.transforms.resample import ReadingRule, resample
from vol3d.transforms.spatial_field import SpatialField, rotation_matrix, spatial_field

ELASTIC = {"displacement_mm": 2.5, "control_spacing_mm": 8.0, "seed": 3}
TURNED = {"rotation_degrees": [12, -20, 35], "scale": [0.8, 1.1, 1.3], "translation_vox": [1.3, -2.2, 0.4]}


@pytest.fixture(params=["cpu kernel", "grid_sample"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kernels must hold what these tests say; grid_sample runs on the CPU too."""
    if request.param == "grid_sample":
        monkeypatch.setattr(resample_module, "read_by_slabs", resample_module._read_by_grid_sample)
    return str(request.param)


def field(
    roi: tuple[int, int, int], start: tuple[int, int, int] = (0, 0, 0), spacing: Any = (1, 1, 1), **drawn: Any
) -> SpatialField:
    return spatial_field(roi, {"start_vox": list(start), "spacing_mm": list(spacing), "spatial": drawn})


def elastic_of(where: SpatialField) -> list[torch.Tensor]:
    return [torch.from_numpy(array).to(torch.float32) for array in where.elastic_arrays]


def volume(shape: tuple[int, int, int], channels: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32))


def labelmap(shape: tuple[int, int, int], dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    # Large blobs: the nearest voxel is then rarely decided by the last bit of a coordinate.
    smooth = ndimage.gaussian_filter(volume(shape, seed=1)[0].numpy(), 2)
    return torch.from_numpy(np.digitize(smooth, np.quantile(smooth, [0.5, 0.8]))[None]).to(dtype)


@pytest.mark.parametrize(("rule", "mode"), [(ReadingRule(-0.7), "grid-constant"), (ReadingRule(0, True), "nearest")])
@pytest.mark.parametrize("drawn", [TURNED, {**TURNED, "elastic": ELASTIC, "flip_axes": [1]}])
@pytest.mark.parametrize("shapes", [((20, 24, 18), (17, 16, 21)), ((9, 31, 14), (24, 20, 16))])
def test_image_values_are_those_of_scipy(path: str, rule: ReadingRule, mode: str, drawn: Any, shapes: Any) -> None:
    image = volume(shapes[0], channels=2)
    where = field(shapes[1], start=(1, 4, -2), spacing=(1, 1, 2.5), **drawn)
    result, _ = resample(image, None, where, rule, elastic_of(where))
    for new, old in zip(result.numpy(), image.numpy(), strict=True):
        expected = ndimage.map_coordinates(old, where.coordinates(), order=1, mode=mode, cval=rule.outside_value)
        # Coordinates in float32 are off by 1e-5 voxel, values differ by a few units between neighbors.
        np.testing.assert_allclose(new, expected, atol=1e-4)


def test_an_affine_field_reads_what_simpleitk_reads_inside_the_volume(path: str) -> None:
    image = volume((30, 30, 30))
    spacing, degrees = (1.0, 1.0, 2.0), (10.0, 15.0, -20.0)
    where = field((12, 12, 12), start=(9, 9, 9), spacing=spacing, rotation_degrees=degrees)
    # SimpleITK orders arrays backwards: index (i, j, k) of an array is (k, j, i) of its image.
    source = sitk.GetImageFromArray(image[0].numpy().transpose(2, 1, 0))
    source.SetSpacing(spacing)
    center = (np.array([9, 9, 9]) + 5.5) * spacing
    transform = sitk.AffineTransform(rotation_matrix(degrees).ravel().tolist(), [0.0] * 3, center.tolist())
    reference = sitk.Image([12, 12, 12], sitk.sitkFloat32)
    reference.SetSpacing(spacing)
    reference.SetOrigin((np.array([9.0, 9.0, 9.0]) * spacing).tolist())
    expected = sitk.GetArrayFromImage(sitk.Resample(source, reference, transform, sitk.sitkLinear, 0.0))
    result, _ = resample(image, None, where, ReadingRule())
    np.testing.assert_allclose(result[0].numpy(), expected.transpose(2, 1, 0), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32, torch.bool])
def test_labels_are_those_of_the_nearest_voxel(path: str, dtype: torch.dtype) -> None:
    label = labelmap((20, 24, 18), dtype)
    where = field((17, 16, 21), start=(1, 4, -2), **TURNED, elastic=ELASTIC)
    _, result = resample(volume((20, 24, 18)), label, where, ReadingRule(9.0, True), elastic_of(where))
    assert result is not None
    assert result.dtype == dtype
    old = label[0].to(torch.uint8).numpy()
    expected = ndimage.map_coordinates(old, where.coordinates(), order=0, mode="grid-constant", cval=0)
    different = result[0].to(torch.uint8).numpy() != expected
    assert different.mean() < 1e-3
    assert set(result.unique().tolist()) <= set(label.unique().tolist()) | {0}


def test_labels_by_class_are_those_of_scipy_per_class(path: str) -> None:
    label = labelmap((20, 24, 18), torch.int16)
    where = field((17, 16, 21), start=(1, 4, -2), **TURNED)
    _, result = resample(volume((20, 24, 18)), label, where, ReadingRule(num_label_classes=3))
    shares = [
        ndimage.map_coordinates(
            (label[0].numpy() == k).astype(np.float32), where.coordinates(), order=1, mode="grid-constant", cval=k == 0
        )
        for k in range(3)
    ]
    expected, margin = np.argmax(shares, axis=0), np.diff(np.sort(shares, axis=0)[-2:], axis=0)[0]
    assert result is not None
    assert result.dtype == torch.int16
    clear = margin > 1e-4
    np.testing.assert_array_equal(result[0].numpy()[clear], expected[clear])
    assert clear.mean() > 0.99


def test_labels_do_not_depend_on_the_image_padding(path: str) -> None:
    label = torch.ones((1, 6, 6, 6), dtype=torch.uint8)
    where = field((6, 6, 6), start=(4, 0, 0), rotation_degrees=[0, 0, 5])
    _, result = resample(volume((6, 6, 6)), label, where, ReadingRule(5.0, is_border=True))
    assert result is not None
    assert result[0, 0, 2, 2] == 1
    assert result[0, -1].max() == 0


@pytest.mark.parametrize("is_border", [False, True])
@pytest.mark.parametrize(("shape", "roi"), [((9, 8, 7), (5, 4, 4)), ((4, 5, 6), (7, 8, 8)), ((3, 9, 5), (8, 4, 5))])
@pytest.mark.parametrize("flips", [[], [0], [1, 2]])
def test_copying_and_interpolating_agree_bit_by_bit_on_the_grid(
    path: str, monkeypatch: pytest.MonkeyPatch, is_border: bool, shape: Any, roi: Any, flips: list[int]
) -> None:
    image, label, rule = volume(shape), labelmap(shape), ReadingRule(-3.0, is_border)
    where = field(roi, start=(1, -2, 1), flip_axes=flips)
    copied, copied_label = resample(image, label, where, rule)
    monkeypatch.setattr(SpatialField, "is_on_grid", False)
    read, read_label = resample(image, label, where, rule)
    assert copied_label is not None
    assert read_label is not None
    if path == "cpu kernel":
        assert torch.equal(copied, read)
    else:
        torch.testing.assert_close(copied, read, atol=1e-5, rtol=0)
    assert torch.equal(copied_label, read_label)


@pytest.mark.parametrize("start", [(50, 0, 0), (0, -60, 0)])
@pytest.mark.parametrize("drawn", [{}, {"rotation_degrees": [5, 5, 5]}])
def test_a_patch_far_outside_holds_only_padding(path: str, start: Any, drawn: Any) -> None:
    where = field((4, 5, 6), start=start, **drawn)
    image, label = resample(volume((8, 8, 8)), labelmap((8, 8, 8)) + 1, where, ReadingRule(-5.0))
    assert label is not None
    # grid_sample's eight weights sum to 1 but for rounding.
    torch.testing.assert_close(image, torch.full_like(image, -5.0), atol=0, rtol=0 if path == "cpu kernel" else 1e-6)
    assert label.unique().tolist() == [0]


@pytest.mark.parametrize("shape", [(1, 12, 12), (12, 1, 1), (1, 1, 1)])
def test_one_voxel_axes_are_read_like_by_scipy(path: str, shape: Any) -> None:
    image, where = volume(shape), field((5, 6, 7), start=(-2, -2, -2), **TURNED)
    result, _ = resample(image, None, where, ReadingRule(1.0))
    expected = ndimage.map_coordinates(image[0].numpy(), where.coordinates(), order=1, mode="grid-constant", cval=1.0)
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float16, torch.float64])
def test_any_image_dtype_is_read_as_float32(path: str, dtype: torch.dtype) -> None:
    image = (volume((10, 10, 10)) * 20).abs().to(dtype)
    for drawn in ({}, TURNED):
        where = field((8, 8, 8), **drawn)
        result, _ = resample(image, None, where, ReadingRule())
        expected, _ = resample(image.to(torch.float32), None, where, ReadingRule())
        assert result.dtype == torch.float32
        assert torch.equal(result, expected)


@pytest.mark.parametrize("drawn", [{}, TURNED])
def test_padding_values_survive_images_of_integers(path: str, drawn: Any) -> None:
    image = torch.full((1, 4, 4, 4), 3, dtype=torch.uint8)
    result, _ = resample(image, None, field((12, 12, 12), start=(-4, -4, -4), **drawn), ReadingRule(-1000.5))
    assert abs(float(result.min()) + 1000.5) < 1e-3


def test_a_patch_that_reads_too_many_voxels_is_refused() -> None:
    image = torch.zeros(1, device="meta").expand(1, 2000, 2000, 2000)
    with pytest.raises(GeometryError, match=r"patch must read less than 2\^31 voxels of its volume, got 7"):
        resample(image, None, field((1900, 1900, 1900), rotation_degrees=[1, 0, 0]), ReadingRule())


@pytest.mark.parametrize("slab_voxels", [1, 500, 10**9])
def test_slabs_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch, slab_voxels: int) -> None:
    image, label = volume((20, 20, 20), channels=2), labelmap((20, 20, 20))
    where = field((15, 14, 13), **TURNED)
    expected = resample(image, label, where, ReadingRule())
    monkeypatch.setattr(trilinear_kernel, "SLAB_VOXELS", slab_voxels)
    result = resample(image, label, where, ReadingRule())
    assert torch.equal(result[0], expected[0])
    assert torch.equal(result[1], expected[1])  # type: ignore[arg-type]


def test_volumes_that_are_views_are_read_like_copies() -> None:
    image = volume((16, 20, 18)).permute(0, 3, 1, 2)[:, 2:-1]
    where = field((9, 9, 9), **TURNED)
    assert torch.equal(
        resample(image, None, where, ReadingRule())[0], resample(image.contiguous(), None, where, ReadingRule())[0]
    )
