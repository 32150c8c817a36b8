"""Operations on the values of one sample, in place, one pass each and only those that were drawn.

Order: CT window, bias field, blur and low resolution, noise, brightness and shift, contrast, inverted gamma, gamma; the
scanner's effects come first, those of display after. Nothing here copies from the device to the host.

Blur and low resolution are linear and separable: both together are one small matrix per axis, applied as three matrix
products. That costs less than convolutions at the size of patches and makes every boundary rule exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vol3d.transforms.counter_noise import normal_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vol3d.transforms.augment_draw import Parameters

Array = NDArray[np.float64]

# Keeps the division of a constant image defined; far below any image's range.
_EPSILON = 1e-7
_TINY = 1e-30


def intensity_arrays(roi_size: Sequence[int], drawn: Parameters) -> dict[str, list[Array]]:
    """Return the small arrays that `augment_intensity` needs for patches of this size, by operation."""
    arrays: dict[str, list[Array]] = {}
    if "bias_field" in drawn:
        arrays["bias_field"] = bias_field_arrays(roi_size, **drawn["bias_field"])
    if "blur_sigma_vox" in drawn or "low_resolution_zoom" in drawn:
        arrays["resolution"] = [
            low_resolution_matrix(size, drawn.get("low_resolution_zoom", 1.0))
            @ blur_matrix(size, drawn.get("blur_sigma_vox", 0.0))
            for size in roi_size
        ]
    return arrays


def augment_intensity(
    image: torch.Tensor, drawn: Parameters, arrays: Mapping[str, Sequence[torch.Tensor]]
) -> torch.Tensor:
    """Apply the drawn operations.

    Args:
        image: ``C H W D`` float32; it is overwritten.
        drawn: The ``intensity`` part of a sample's parameters.
        arrays: What `intensity_arrays` made of it, as float32 tensors on the image's device.

    Returns:
        The augmented image: ``image`` itself or a tensor that replaces it.
    """
    if "window_hu" in drawn:
        map_window(image, *drawn["window_hu"])
    if "bias_field" in arrays:
        multiply_bias_field(image, *arrays["bias_field"])
    if "resolution" in arrays:
        image = multiply_axes(image, arrays["resolution"])
    for name, add_noise in _NOISES.items():
        if name in drawn:
            add_noise(image, **drawn[name])
    for name, bend in _CURVES.items():
        if name in drawn:
            bend(image, drawn[name])
    return image


def map_window(image: torch.Tensor, low_hu: float, high_hu: float) -> torch.Tensor:
    """Map a CT window to ``[0, 1]`` in place; values outside saturate."""
    return image.sub_(low_hu).mul_(1.0 / (high_hu - low_hu)).clamp_(0.0, 1.0)


def bias_field_arrays(roi_size: Sequence[int], degree: int, coefficients: Sequence[float]) -> list[Array]:
    """Return the cube of coefficients and the Legendre polynomials over ``[-1, 1]`` along each axis.

    Args:
        roi_size: Voxels along ``H W D``.
        degree: Highest total degree.
        coefficients: One for each term ``i + j + k <= degree``, ``k`` (axis ``D``) innermost, as in
            MONAI's ``RandBiasField``.
    """
    terms = [(i, j, k) for i in range(degree + 1) for j in range(degree + 1 - i) for k in range(degree + 1 - i - j)]
    cube = np.zeros((degree + 1,) * 3)
    cube[tuple(np.array(terms).T)] = coefficients
    bases = [np.polynomial.legendre.legvander(np.linspace(-1, 1, n), degree).astype(np.float64) for n in roi_size]
    return [cube, *bases]


def multiply_bias_field(
    image: torch.Tensor, cube: torch.Tensor, basis_h: torch.Tensor, basis_w: torch.Tensor, basis_d: torch.Tensor
) -> torch.Tensor:
    """Multiply in place by ``exp`` of the polynomial of `bias_field_arrays`."""
    spread = basis_w @ (cube @ basis_d.T)
    field = (basis_h @ spread.view(cube.shape[0], -1)).exp_()
    return image.mul_(field.view(image.shape[1:]))


def multiply_axes(image: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the image with one square matrix applied along each of ``H W D``."""
    along_h, along_w, along_d = matrices
    result = along_w @ (image @ along_d.T)
    return (along_h @ result.view(*image.shape[:2], -1)).view(image.shape)


def blur_matrix(size: int, sigma_vox: float) -> Array:
    """Return the ``size x size`` matrix of a Gaussian blur, cut at 4 sigma; borders repeat (SciPy's ``nearest``)."""
    if sigma_vox <= 0:
        return np.eye(size)
    radius = int(4 * sigma_vox + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_vox) ** 2)
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, tap in zip(range(-radius, radius + 1), taps / taps.sum(), strict=True):
        np.add.at(matrix, (rows, np.clip(rows + offset, 0, size - 1)), tap)
    return matrix


def low_resolution_matrix(size: int, zoom: float) -> Array:
    """Return the matrix that takes every ``1 / zoom``-th voxel (nearest) and interpolates back linearly.

    Both steps align the volume's edges, not its centers, as ``torch.nn.functional.interpolate`` does by default.
    """
    num_kept = max(1, round(size * zoom))
    kept = np.minimum((np.arange(num_kept) * (size / num_kept)).astype(int), size - 1)
    position = np.clip((np.arange(size) + 0.5) * (num_kept / size) - 0.5, 0, num_kept - 1)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, num_kept - 1)
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    np.add.at(matrix, (rows, kept[lower]), 1 - (position - lower))
    np.add.at(matrix, (rows, kept[upper]), position - lower)
    return matrix


def add_gaussian_noise(image: torch.Tensor, sigma: float, seed: int) -> torch.Tensor:
    """Add independent normal noise in place."""
    return image.add_(normal_noise(image.shape, seed, image.device), alpha=sigma)


def add_rician_noise(image: torch.Tensor, sigma: float, seed: int) -> torch.Tensor:
    """Turn magnitudes above each channel's minimum into Rician ones in place: ``|x + n1 + i n2|``.

    The minimum stands for zero signal, so that images with negative values (z-scores) keep their sign.
    """
    real, imaginary = normal_noise((2, *image.shape), seed, image.device).mul_(sigma)
    low = image.amin(dim=(1, 2, 3), keepdim=True)
    image.sub_(low).add_(real)
    return torch.hypot(image, imaginary, out=image).add_(low)


def add_poisson_noise(image: torch.Tensor, photons: float, seed: int) -> torch.Tensor:
    """Replace values by photon counts in place: the minimum of each channel is 0 photons, the maximum ``photons``.

    Counts are drawn from the normal distribution with the Poisson mean and variance, rounded, and not below 0: at 200
    photons its distribution differs from Poisson's by less than 1%, and it is the same on every device.
    """
    low = image.amin(dim=(1, 2, 3), keepdim=True)
    unit = (image.amax(dim=(1, 2, 3), keepdim=True) - low).add_(_EPSILON).div_(photons)
    image.sub_(low).div_(unit)
    noise = normal_noise(image.shape, seed, image.device).mul_(image.sqrt())
    return image.add_(noise).round_().clamp_(min=0).mul_(unit).add_(low)


def stretch_contrast(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Stretch about each channel's mean in place, clipped to the range the channel had."""
    low, high = image.amin(dim=(1, 2, 3), keepdim=True), image.amax(dim=(1, 2, 3), keepdim=True)
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image.mul_(factor).add_(mean * (1 - factor))
    return torch.clamp(image, low, high, out=image)


def apply_gamma(image: torch.Tensor, gamma: float) -> torch.Tensor:
    """Raise each channel, mapped to ``[0, 1]``, to a power in place; its mean and standard deviation are kept."""
    axes = (1, 2, 3)
    low, high = image.amin(dim=axes, keepdim=True), image.amax(dim=axes, keepdim=True)
    span = high - low + _EPSILON
    image.sub_(low).div_(span)
    mean, deviation = _mean_and_norm(image)
    # As pow costs twice as much on the CPU. Eight times as much would cost logarithms of 0, of which a CT is full: what
    # comes of the clamped value is still 0 for float32 next to anything else.
    image.clamp_(min=_TINY).log2_().mul_(gamma).exp2_()
    new_mean, new_deviation = _mean_and_norm(image)
    factor = deviation / (new_deviation + _EPSILON) * span
    return image.mul_(factor).add_(mean * span + low - new_mean * factor)


def apply_gamma_inverted(image: torch.Tensor, gamma: float) -> torch.Tensor:
    """Apply the gamma curve to the negative image in place."""
    return apply_gamma(image.neg_(), gamma).neg_()


def _mean_and_norm(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each channel's mean and the Euclidean norm of what deviates from it (torch.std is far slower)."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return mean, torch.linalg.vector_norm(image - mean, dim=(1, 2, 3), keepdim=True)


# In the order of application.
_NOISES: dict[str, Callable[..., torch.Tensor]] = {
    "gaussian_noise": add_gaussian_noise,
    "rician_noise": add_rician_noise,
    "poisson_noise": add_poisson_noise,
}
_CURVES: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "brightness": torch.Tensor.mul_,
    "shift": torch.Tensor.add_,
    "contrast": stretch_contrast,
    "gamma_inverted": apply_gamma_inverted,
    "gamma": apply_gamma,
}
