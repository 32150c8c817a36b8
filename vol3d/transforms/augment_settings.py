"""What `BatchAugment` may draw: one probability and one range per operation.

A range is ``(low, high)``, both ends included, drawn uniformly unless an operation says otherwise; a probability of 0
switches its operation off. Lengths ending in ``_mm`` are measured in the world (`SpatialSettings.spacing_mm`, or the
batch's own spacing), lengths ending in ``_vox`` in voxels of the patch, noise in the unit of the image.

The defaults are those of nnU-Net v2 (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; `nnUNetTrainer`), for images
normalized to zero mean and unit variance; operations nnU-Net does not have are off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from vol3d.errors import ConfigError

Range = tuple[float, float]
Triple = tuple[float, float, float]

# Displacements of uniform cubic B-splines below 0.403 control-point spacings cannot fold space in 3D
# (Choi and Lee 2000, doi:10.1006/gmod.1999.0521).
MAX_ELASTIC_FRACTION = 0.4


@dataclass(frozen=True)
class SpatialSettings:
    """Geometric operations, all composed into one sampling field per sample.

    Args:
        rotation_probability: Of a rotation about the center of the patch.
        rotation_degrees: Angle about each axis ``H W D``, drawn independently; a rotation in the world.
        scale_probability: Of a change of size.
        scale_range: Magnification; 2 shows anatomy twice as large. Drawn evenly in the logarithm.
        is_scale_isotropic: One factor for the three axes; otherwise one factor per axis.
        shear_probability: Of a shear.
        shear_range: Each of the six off-diagonal entries of the world's shear matrix.
        translation_probability: Of a shift.
        translation_vox: Shift of the anatomy along each axis, drawn independently.
        elastic_probability: Of an elastic deformation by cubic B-splines.
        elastic_displacement_mm: Largest displacement along each axis of the control points of one sample.
        elastic_spacing_mm: Distance between control points; displacements stay below 0.4 of it, so space never folds.
        flip_probability: Of a flip, for each of ``H W D`` by itself.
        is_random_crop: Draw where the patch lies in a larger volume; otherwise its center is taken. A batch that
            brings ``center_vox`` decides for itself.
        spacing_mm: Voxel size along ``H W D``, unless the batch brings its own ``spacing_mm``.
        padding: What the image holds outside the volume: ``constant`` or ``border`` (the nearest voxel's value).
            Labels are 0 there in either case.
        padding_value: Value of the image outside the volume, for ``constant``.
        num_label_classes: Labels are interpolated by class (one-hot, linear, largest wins) among so many classes,
            counted from 0; other labels become 0. With None the nearest voxel's label is taken.

    Raises:
        ConfigError: If a probability is outside ``[0, 1]``, a range is reversed, or space could fold.
    """

    rotation_probability: float = 0.2
    rotation_degrees: Range = (-30.0, 30.0)
    scale_probability: float = 0.2
    scale_range: Range = (0.7, 1.4)
    is_scale_isotropic: bool = True
    shear_probability: float = 0.0
    shear_range: Range = (-0.1, 0.1)
    translation_probability: float = 0.0
    translation_vox: Range = (-8.0, 8.0)
    elastic_probability: float = 0.0
    elastic_displacement_mm: Range = (0.0, 6.0)
    elastic_spacing_mm: float = 24.0
    flip_probability: Triple = (0.5, 0.5, 0.5)
    is_random_crop: bool = False
    spacing_mm: Triple = (1.0, 1.0, 1.0)
    padding: Literal["constant", "border"] = "constant"
    padding_value: float = 0.0
    num_label_classes: int | None = None

    def __post_init__(self) -> None:
        _freeze_and_check(self)
        _check_low("scale_range", self.scale_range, above=0.0)
        _check_low("elastic_displacement_mm", self.elastic_displacement_mm, least=0.0)
        if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
            raise ConfigError(f"spacing_mm must be 3 positive lengths, got {self.spacing_mm}; give H W D in mm")
        if self.padding not in {"constant", "border"}:
            raise ConfigError(f"padding must be 'constant' or 'border', got {self.padding!r}; choose one of them")
        if self.num_label_classes is not None and self.num_label_classes < 2:
            raise ConfigError(f"num_label_classes must be at least 2, got {self.num_label_classes}; or leave it out")
        limit = MAX_ELASTIC_FRACTION * self.elastic_spacing_mm
        if self.elastic_displacement_mm[1] > limit:
            raise ConfigError(
                f"elastic_displacement_mm must not exceed {limit:g} ({MAX_ELASTIC_FRACTION} of elastic_spacing_mm), got"
                f" {self.elastic_displacement_mm[1]:g}; space would fold: raise the spacing or lower the displacement"
            )


@dataclass(frozen=True)
class IntensitySettings:
    """Operations on image values, listed in the order in which they are applied.

    One draw holds for all channels of a sample; minima, maxima and means are those of each channel, and noise is
    independent between channels.

    Args:
        window_hu: CT window ``(low, high)``: every image is mapped to ``[0, 1]`` and saturates, drawn or not.
            With None the image keeps its unit and there is no jitter.
        window_jitter_probability: Of a jitter of that window.
        window_jitter_hu: Shift of each end of the window, drawn independently.
        bias_field_probability: Of a smooth multiplicative field ``exp(polynomial)`` (MR coil shading).
        bias_field_range: Each coefficient of the Legendre polynomial over the patch.
        bias_field_degree: Highest total degree of the polynomial.
        blur_probability: Of a Gaussian blur.
        blur_sigma_vox: Its standard deviation, one for all axes.
        low_resolution_probability: Of a resampling to fewer voxels and back (nearest down, linear up).
        low_resolution_zoom: Fraction of voxels kept along each axis.
        gaussian_noise_probability: Of additive noise.
        gaussian_noise_sigma: Its standard deviation.
        rician_noise_probability: Of the noise of MR magnitude images.
        rician_noise_sigma: Standard deviation of each of its two components.
        poisson_noise_probability: Of photon noise.
        poisson_noise_photons: Photons counted at the brightest voxel, drawn evenly in the logarithm.
        brightness_probability: Of a multiplication of all values.
        brightness_range: The factor.
        shift_probability: Of an addition to all values.
        shift_range: The summand.
        contrast_probability: Of a stretch about the mean, clipped to the range before.
        contrast_range: The factor.
        gamma_inverted_probability: Of a gamma curve on the negative image.
        gamma_probability: Of a gamma curve. Mean and standard deviation stay what they were.
        gamma_range: The exponent of both; below and above 1 are equally probable.

    Raises:
        ConfigError: If a probability is outside ``[0, 1]``, or a range is reversed or outside its operation's domain.
    """

    window_hu: Range | None = None
    window_jitter_probability: float = 0.0
    window_jitter_hu: Range = (-20.0, 20.0)
    bias_field_probability: float = 0.0
    bias_field_range: Range = (-0.2, 0.2)
    bias_field_degree: int = 3
    blur_probability: float = 0.2
    blur_sigma_vox: Range = (0.5, 1.0)
    low_resolution_probability: float = 0.25
    low_resolution_zoom: Range = (0.5, 1.0)
    gaussian_noise_probability: float = 0.1
    gaussian_noise_sigma: Range = (0.0, 0.1)
    rician_noise_probability: float = 0.0
    rician_noise_sigma: Range = (0.0, 0.1)
    poisson_noise_probability: float = 0.0
    poisson_noise_photons: Range = (200.0, 5000.0)
    brightness_probability: float = 0.15
    brightness_range: Range = (0.75, 1.25)
    shift_probability: float = 0.0
    shift_range: Range = (-0.1, 0.1)
    contrast_probability: float = 0.15
    contrast_range: Range = (0.75, 1.25)
    gamma_inverted_probability: float = 0.1
    gamma_probability: float = 0.3
    gamma_range: Range = (0.7, 1.5)

    def __post_init__(self) -> None:
        _freeze_and_check(self)
        for name in ("blur_sigma_vox", "gaussian_noise_sigma", "rician_noise_sigma"):
            _check_low(name, getattr(self, name), least=0.0)
        for name in ("low_resolution_zoom", "poisson_noise_photons", "gamma_range"):
            _check_low(name, getattr(self, name), above=0.0)
        if self.low_resolution_zoom[1] > 1:
            raise ConfigError(f"low_resolution_zoom must not exceed 1, got {self.low_resolution_zoom}; lower its end")
        if not 1 <= self.bias_field_degree <= 6:
            raise ConfigError(f"bias_field_degree must be 1 to 6, got {self.bias_field_degree}; 3 is usual")
        if self.window_jitter_probability > 0:
            if self.window_hu is None:
                raise ConfigError("window_hu must be given where its jitter is on, got None; name the CT window")
            width = self.window_hu[1] - self.window_hu[0]
            if width <= self.window_jitter_hu[1] - self.window_jitter_hu[0]:
                raise ConfigError(
                    f"window_jitter_hu must leave a window of {width:g} HU open, got {self.window_jitter_hu}; "
                    "narrow the jitter"
                )


def _freeze_and_check(settings: SpatialSettings | IntensitySettings) -> None:
    """Turn lists (as YAML gives them) into tuples, and check what all settings have in common."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(settings, field.name, value)
        # Annotations are strings here: "Range", "Triple" or something else.
        length = {"Range": 2, "Triple": 3}.get(str(field.type))
        if length is not None and (not isinstance(value, tuple) or len(value) != length):
            raise ConfigError(f"{field.name} must hold {length} numbers, got {value}; give all of them")
        numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, (int, float))]
        if not all(math.isfinite(v) for v in numbers):
            raise ConfigError(f"{field.name} must be finite, got {value}; give numbers")
        if field.name.endswith("_probability"):
            if any(not 0 <= v <= 1 for v in numbers):
                raise ConfigError(f"{field.name} must lie in [0, 1], got {value}; give a probability")
        elif isinstance(value, tuple) and len(value) == 2 and value[0] > value[1]:
            raise ConfigError(f"{field.name} must be (low, high), got {value}; swap its ends")


def _check_low(name: str, value: Range, least: float = -math.inf, above: float = -math.inf) -> None:
    if value[0] < least or value[0] <= above:
        rule = f"be above {above:g}" if above > -math.inf else f"be at least {least:g}"
        raise ConfigError(f"{name} must {rule}, got {value}; raise its low end")
