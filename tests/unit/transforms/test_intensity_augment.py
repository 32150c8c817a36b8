from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.transforms import AdjustContrast, RandBiasField, ScaleIntensityRange
from monai.transforms.spatial.functional import resize
from scipy import ndimage, stats

from vol3d.transforms.counter_noise import normal_noise
from vol3d.transforms.intensity_augment import (
    add_gaussian_noise,
    add_poisson_noise,
    add_rician_noise,
    apply_gamma,
    apply_gamma_inverted,
    augment_intensity,
    blur_matrix,
    intensity_arrays,
    low_resolution_matrix,
    map_window,
    stretch_contrast,
)


def image(shape: tuple[int, ...] = (2, 13, 12, 17), seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def augmented(old: torch.Tensor, drawn: dict[str, Any]) -> torch.Tensor:
    arrays = intensity_arrays(old.shape[1:], drawn)
    tensors = {name: [torch.from_numpy(a).float() for a in values] for name, values in arrays.items()}
    return augment_intensity(old.clone(), drawn, tensors)


def test_nothing_drawn_changes_nothing() -> None:
    assert torch.equal(augmented(image(), {}), image())


@pytest.mark.parametrize("sigma", [0.5, 0.83, 1.5, 6.0])
def test_blur_is_that_of_scipy(sigma: float) -> None:
    old = image()
    for new, channel in zip(augmented(old, {"blur_sigma_vox": sigma}).numpy(), old.numpy(), strict=True):
        np.testing.assert_allclose(new, ndimage.gaussian_filter(channel, sigma, mode="nearest"), atol=2e-6)


def test_blur_is_that_of_simpleitk_inside() -> None:
    old = image((1, 24, 24, 24))
    expected = sitk.GetArrayFromImage(
        sitk.DiscreteGaussian(sitk.GetImageFromArray(old[0].numpy()), [4.0] * 3, 32, [0.001] * 3, False)
    )
    new = augmented(old, {"blur_sigma_vox": 2.0})[0].numpy()
    # SimpleITK's kernel is the discrete Gaussian of Lindeberg: alike at this width, not equal.
    np.testing.assert_allclose(new[8:-8, 8:-8, 8:-8], expected[8:-8, 8:-8, 8:-8], atol=0.01)


def test_a_blur_keeps_constants_and_a_blur_of_zero_everything() -> None:
    np.testing.assert_allclose(blur_matrix(5, 3.0).sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(blur_matrix(5, 0.0), np.eye(5))
    np.testing.assert_allclose(blur_matrix(1, 2.0), [[1.0]], rtol=1e-12)


@pytest.mark.parametrize("zoom", [0.3, 0.5, 0.77, 1.0])
def test_low_resolution_is_nearest_down_and_linear_up_as_in_monai(zoom: float) -> None:
    old = image((1, 12, 13, 17))
    small_size = [max(1, round(n * zoom)) for n in old.shape[1:]]
    options = {"dtype": torch.float32, "lazy": False, "anti_aliasing": False, "anti_aliasing_sigma": None,
               "input_ndim": 3, "transform_info": {}}  # fmt: skip
    small = resize(old, tuple(small_size), "nearest", None, **options)
    expected = resize(small, tuple(old.shape[1:]), "trilinear", False, **options)
    new = augmented(old, {"low_resolution_zoom": zoom})
    np.testing.assert_allclose(new.numpy(), np.asarray(expected), atol=1e-5)


def test_low_resolution_keeps_one_voxel_of_a_tiny_axis() -> None:
    np.testing.assert_array_equal(low_resolution_matrix(2, 0.2), [[1, 0], [1, 0]])
    np.testing.assert_array_equal(low_resolution_matrix(1, 0.5), [[1]])


def test_blur_comes_before_low_resolution() -> None:
    old = image()
    both = augmented(old, {"blur_sigma_vox": 1.2, "low_resolution_zoom": 0.6})
    in_turn = augmented(augmented(old, {"blur_sigma_vox": 1.2}), {"low_resolution_zoom": 0.6})
    np.testing.assert_allclose(both.numpy(), in_turn.numpy(), atol=1e-6)


def test_the_bias_field_is_that_of_monai() -> None:
    old = image()
    coefficients = np.random.default_rng(1).uniform(-0.3, 0.3, 20)
    monai = RandBiasField(degree=3, prob=1.0)
    field = monai._generate_random_field(spatial_shape=old.shape[1:], degree=3, coeff=coefficients)
    new = augmented(old, {"bias_field": {"degree": 3, "coefficients": coefficients.tolist()}})
    np.testing.assert_allclose(new.numpy(), old.numpy() * np.exp(field), rtol=1e-5, atol=1e-6)


def test_a_window_is_that_of_monai() -> None:
    hu = image() * 300
    expected = ScaleIntensityRange(-150, 250, 0, 1, clip=True)(hu.clone())
    np.testing.assert_allclose(map_window(hu.clone(), -150, 250).numpy(), np.asarray(expected), atol=1e-6)


def test_gaussian_noise_has_its_standard_deviation_and_differs_between_channels() -> None:
    noise = (add_gaussian_noise(image((2, 40, 40, 40)).clone(), 0.25, seed=4) - image((2, 40, 40, 40))).numpy()
    assert abs(noise.std() - 0.25) < 0.003
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


def test_rician_noise_follows_the_rice_distribution() -> None:
    old = torch.full((1, 40, 40, 40), 2.0)
    old[0, 0, 0, 0] = 0.0
    values = add_rician_noise(old.clone(), 0.5, seed=4)[0, 1:].numpy().ravel()
    assert stats.kstest(values[::5], stats.rice(b=2.0 / 0.5, scale=0.5).cdf).pvalue > 0.01


def test_rician_noise_of_magnitudes_is_the_length_of_a_noisy_complex_number() -> None:
    old = image().abs()
    old[:, 0, 0, 0] = 0
    real, imaginary = normal_noise((2, *old.shape), 9) * 0.1
    np.testing.assert_allclose(
        add_rician_noise(old.clone(), 0.1, seed=9).numpy(),
        torch.sqrt((old + real) ** 2 + imaginary**2).numpy(),
        atol=1e-6,
    )


def test_rician_noise_keeps_negative_values_where_they_are() -> None:
    old = image((1, 20, 20, 20)) - 3
    assert abs(float((add_rician_noise(old.clone(), 0.01, seed=1) - old).mean())) < 0.01


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_poisson_noise_has_the_mean_and_variance_of_counted_photons(share: float) -> None:
    photons = 400.0
    old = torch.full((1, 40, 40, 40), share)
    old[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    counts = add_poisson_noise(old.clone(), photons, seed=2)[0, 1:].numpy() * photons
    reference = np.random.default_rng(0).poisson(photons * share, counts.size)
    assert abs(counts.mean() - reference.mean()) < 0.02 * reference.mean()
    assert abs(counts.var() - reference.var()) < 0.05 * reference.var()
    np.testing.assert_allclose(counts, counts.round(), atol=1e-2)


def test_contrast_is_a_stretch_about_the_mean_clipped_to_the_old_range() -> None:
    old = image().double().numpy()
    for factor in (0.7, 1.6):
        new = stretch_contrast(image(), factor).numpy()
        for channel, result in zip(old, new, strict=True):
            expected = np.clip((channel - channel.mean()) * factor + channel.mean(), channel.min(), channel.max())
            np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.7, 1.0, 1.5])
def test_gamma_with_kept_statistics_is_that_of_monai(gamma: float) -> None:
    old = image((1, 13, 12, 17))
    expected = np.asarray(AdjustContrast(gamma, retain_stats=True)(old.clone()))
    # MONAI keeps torch's unbiased standard deviation; both ratios of deviations are the same.
    np.testing.assert_allclose(apply_gamma(old.clone(), gamma).numpy(), expected, atol=2e-5)
    inverted = np.asarray(AdjustContrast(gamma, retain_stats=True, invert_image=True)(old.clone()))
    np.testing.assert_allclose(apply_gamma_inverted(old.clone(), gamma).numpy(), inverted, atol=2e-5)


def test_gamma_keeps_mean_and_deviation_of_each_channel() -> None:
    old = image() * torch.tensor([1.0, 50.0])[:, None, None, None] + 7
    new = apply_gamma(old.clone(), 1.4)
    np.testing.assert_allclose(new.mean(dim=(1, 2, 3)), old.mean(dim=(1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(new.std(dim=(1, 2, 3)), old.std(dim=(1, 2, 3)), rtol=1e-4)


def test_brightness_and_shift_are_a_product_and_a_sum() -> None:
    np.testing.assert_allclose(
        augmented(image(), {"brightness": 1.2, "shift": -0.5}).numpy(), image().numpy() * 1.2 - 0.5, rtol=1e-6
    )


@pytest.mark.parametrize(
    "drawn",
    [
        {"gamma": 0.7},
        {"gamma_inverted": 1.5},
        {"contrast": 1.3},
        {"poisson_noise": {"photons": 100.0, "seed": 1}},
        {"rician_noise": {"sigma": 0.0, "seed": 1}},
        {"blur_sigma_vox": 1.0, "low_resolution_zoom": 0.5},
    ],
)
def test_an_empty_patch_stays_as_it_was(drawn: dict[str, Any]) -> None:
    constant = torch.full((2, 6, 5, 4), -1024.0)
    new = augmented(constant, drawn)
    torch.testing.assert_close(new, constant, atol=1e-3, rtol=0)


def test_operations_follow_their_documented_order() -> None:
    drawn = {"gamma": 1.3, "brightness": 1.1, "window_hu": [-2.0, 2.0], "gaussian_noise": {"sigma": 0.1, "seed": 1}}
    expected = apply_gamma(add_gaussian_noise(map_window(image(), -2, 2), 0.1, 1).mul_(1.1), 1.3)
    assert torch.equal(augmented(image(), drawn), expected)
