"""Which augmentation a sample gets: a pure function of (seed, epoch, case, draw).

Every operation reads a random stream of its own, keyed by those four and by its name, so that nothing else decides:
neither batch order, number of workers or device, nor which other operations are switched on.

The result is a list of plain dictionaries (JSON-able), one per sample:

* ``case, draw, epoch``: whose parameters these are;
* ``start_vox``: index in the volume of the first voxel of the unmoved patch, may be negative (padding);
* ``spacing_mm``: voxel size along ``H W D``;
* ``spatial``, ``intensity``: the operations that were drawn, each with its parameters; absent means not applied.
  Fields too large to list (noise, elastic control points) are given by the 63-bit ``seed`` that generates them.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.errors import ConfigError, GeometryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vol3d.transforms.augment_settings import IntensitySettings, Range, SpatialSettings

Parameters = dict[str, Any]


@dataclass(frozen=True)
class SampleIdentity:
    """Who a sample is and where it lies; together with a seed it decides the sample's augmentation.

    Args:
        case: Name or number of the case.
        draw: Number of the sample among those of one case and epoch.
        epoch: Epoch, counted from 1 as ignite does, or from anything else.
        shape: Voxels of the volume along ``H W D``.
        spacing_mm: Voxel size along ``H W D``.
        center_vox: Where the patch lies: volume index that becomes index ``roi_size // 2`` of the patch; None leaves it
            to the settings.

    Raises:
        ConfigError: If the case is neither text nor a whole number.
        GeometryError: If the spacing is not positive.
    """

    case: str | int
    draw: int
    epoch: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    center_vox: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.case, (str, int)):
            raise ConfigError(f"case must be a name or a whole number, got {self.case!r}; convert it in the dataset")
        if not all(math.isfinite(mm) and mm > 0 for mm in self.spacing_mm):
            raise GeometryError(f"spacing_mm must be positive, got {self.spacing_mm}; repair the image header")


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random stream that belongs to these names; the same names give the same stream on every machine."""
    return _generator(_digest(seed, *names))


def _digest(seed: int, *names: str | int) -> bytes:
    """Return 16 bytes for the key of a stream and 8 for the chance that decides whether it is needed at all."""
    text = "\0".join(f"{type(name).__name__}:{name}" for name in (seed, *names))
    return hashlib.blake2b(text.encode(), digest_size=24).digest()


def _generator(digest: bytes) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def occurrences(cases: Sequence[str | int]) -> list[int]:
    """Return for each sample of a batch how many samples of the same case come before it.

    Example:
        >>> occurrences(["a", "b", "a"])
        [0, 0, 1]
    """
    seen: Counter[str | int] = Counter()
    numbers = []
    for case in cases:
        numbers.append(seen[case])
        seen[case] += 1
    return numbers


class AugmentDraw:
    """Draws the parameters of samples.

    Args:
        roi_size: Voxels of the patch along ``H W D``.
        spatial: Geometric operations.
        intensity: Operations on values.
        seed: Number of the whole experiment.
    """

    def __init__(
        self, roi_size: Sequence[int], spatial: SpatialSettings, intensity: IntensitySettings, seed: int
    ) -> None:
        self.roi_size = tuple(roi_size)
        self.spatial = spatial
        self.intensity = intensity
        self.seed = seed

    def __call__(self, sample: SampleIdentity) -> Parameters:
        """Return the parameters of one sample; see the module's docstring."""
        return {
            "case": sample.case,
            "draw": sample.draw,
            "epoch": sample.epoch,
            "start_vox": self._start_vox(sample),
            "spacing_mm": list(sample.spacing_mm),
            "spatial": self._spatial(sample),
            "intensity": self._intensity(sample),
        }

    def _stream(self, sample: SampleIdentity, operation: str) -> np.random.Generator:
        return stream(self.seed, sample.epoch, sample.case, sample.draw, operation)

    def _start_vox(self, sample: SampleIdentity) -> list[int]:
        if sample.center_vox is not None:
            return [c - roi // 2 for c, roi in zip(sample.center_vox, self.roi_size, strict=True)]
        starts = [center_start(n, roi) for n, roi in zip(sample.shape, self.roi_size, strict=True)]
        if self.spatial.is_random_crop:
            rng = self._stream(sample, "crop")
            rooms = [max(n - roi, 0) for n, roi in zip(sample.shape, self.roi_size, strict=True)]
            drawn = [int(rng.integers(room + 1)) for room in rooms]
            starts = [new if room else old for new, room, old in zip(drawn, rooms, starts, strict=True)]
        return starts

    def _spatial(self, sample: SampleIdentity) -> Parameters:
        drawn: Parameters = {}
        s = self.spatial
        if (rng := self._happens(sample, "rotation", s.rotation_probability)) is not None:
            drawn["rotation_degrees"] = _uniform(rng, s.rotation_degrees, 3)
        if (rng := self._happens(sample, "scale", s.scale_probability)) is not None:
            factors = _log_uniform(rng, s.scale_range, 1 if s.is_scale_isotropic else 3)
            drawn["scale"] = factors * 3 if s.is_scale_isotropic else factors
        if (rng := self._happens(sample, "shear", s.shear_probability)) is not None:
            drawn["shear"] = _uniform(rng, s.shear_range, 6)
        if (rng := self._happens(sample, "translation", s.translation_probability)) is not None:
            drawn["translation_vox"] = _uniform(rng, s.translation_vox, 3)
        if (rng := self._happens(sample, "elastic", s.elastic_probability)) is not None:
            (displacement,) = _uniform(rng, s.elastic_displacement_mm, 1)
            drawn["elastic"] = {
                "displacement_mm": displacement,
                "control_spacing_mm": s.elastic_spacing_mm,
                "seed": _seed(rng),
            }
        if max(s.flip_probability) > 0:
            chances = self._stream(sample, "flip").random(3)
            drawn["flip_axes"] = [axis for axis in range(3) if chances[axis] < s.flip_probability[axis]]
        return drawn

    def _intensity(self, sample: SampleIdentity) -> Parameters:
        drawn: Parameters = {}
        s = self.intensity
        if s.window_hu is not None:
            low_hu, high_hu = s.window_hu
            if (rng := self._happens(sample, "window_jitter", s.window_jitter_probability)) is not None:
                shifts = _uniform(rng, s.window_jitter_hu, 2)
                low_hu, high_hu = low_hu + shifts[0], high_hu + shifts[1]
            drawn["window_hu"] = [low_hu, high_hu]
        if (rng := self._happens(sample, "bias_field", s.bias_field_probability)) is not None:
            degree = s.bias_field_degree
            num_terms = math.comb(degree + 3, 3)
            drawn["bias_field"] = {"degree": degree, "coefficients": _uniform(rng, s.bias_field_range, num_terms)}
        if (rng := self._happens(sample, "blur", s.blur_probability)) is not None:
            drawn["blur_sigma_vox"] = _uniform(rng, s.blur_sigma_vox, 1)[0]
        if (rng := self._happens(sample, "low_resolution", s.low_resolution_probability)) is not None:
            drawn["low_resolution_zoom"] = _uniform(rng, s.low_resolution_zoom, 1)[0]
        drawn |= self._noise(sample) | self._curves(sample)
        return drawn

    def _noise(self, sample: SampleIdentity) -> Parameters:
        drawn: Parameters = {}
        s = self.intensity
        if (rng := self._happens(sample, "gaussian_noise", s.gaussian_noise_probability)) is not None:
            drawn["gaussian_noise"] = {"sigma": _uniform(rng, s.gaussian_noise_sigma, 1)[0], "seed": _seed(rng)}
        if (rng := self._happens(sample, "rician_noise", s.rician_noise_probability)) is not None:
            drawn["rician_noise"] = {"sigma": _uniform(rng, s.rician_noise_sigma, 1)[0], "seed": _seed(rng)}
        if (rng := self._happens(sample, "poisson_noise", s.poisson_noise_probability)) is not None:
            drawn["poisson_noise"] = {"photons": _log_uniform(rng, s.poisson_noise_photons, 1)[0], "seed": _seed(rng)}
        return drawn

    def _curves(self, sample: SampleIdentity) -> Parameters:
        drawn: Parameters = {}
        s = self.intensity
        for name in ("brightness", "shift", "contrast"):
            if (rng := self._happens(sample, name, getattr(s, f"{name}_probability"))) is not None:
                drawn[name] = _uniform(rng, getattr(s, f"{name}_range"), 1)[0]
        for name in ("gamma_inverted", "gamma"):
            if (rng := self._happens(sample, name, getattr(s, f"{name}_probability"))) is not None:
                drawn[name] = _around_one(rng, s.gamma_range)
        return drawn

    def _happens(self, sample: SampleIdentity, operation: str, probability: float) -> np.random.Generator | None:
        if probability <= 0:
            return None
        # Most operations do not happen, and a generator takes thirty times as long as a hash.
        digest = _digest(self.seed, sample.epoch, sample.case, sample.draw, operation)
        chance = (int.from_bytes(digest[16:], "little") >> 11) * 2.0**-53
        return _generator(digest) if chance < probability else None


def center_start(size: int, roi: int) -> int:
    """Return the first index of the centered patch: MONAI's ``ResizeWithPadOrCrop``, negative where it pads.

    Example:
        >>> center_start(7, 4), center_start(4, 7)
        (1, -1)
    """
    return size // 2 - roi // 2 if size >= roi else -((roi - size) // 2)


def _uniform(rng: np.random.Generator, limits: Range, num: int) -> list[float]:
    return [float(v) for v in rng.uniform(limits[0], limits[1], num)]


def _log_uniform(rng: np.random.Generator, limits: Range, num: int) -> list[float]:
    return [math.exp(v) for v in _uniform(rng, (math.log(limits[0]), math.log(limits[1])), num)]


def _around_one(rng: np.random.Generator, limits: Range) -> float:
    """Draw evenly from below 1 or above 1 with equal probability, where the range holds 1 (nnU-Net's rule)."""
    low, high = limits
    if low < 1 < high:
        low, high = (low, 1.0) if rng.random() < 0.5 else (1.0, high)
    return _uniform(rng, (low, high), 1)[0]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
