from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from vol3d.transforms.counter_noise import normal_noise


def reference(num_pairs: int, seed: int) -> np.ndarray:
    """The same hash and formula, written with NumPy's unsigned integers."""
    keys = np.frombuffer(hashlib.blake2b(np.uint64(seed).tobytes(), digest_size=8).digest(), np.uint32)
    x = np.arange(num_pairs, dtype=np.uint32)
    with np.errstate(over="ignore"):
        for key in keys:
            x += key
            x ^= x >> np.uint32(16)
            x *= np.uint32(0x7FEB352D)
            x ^= x >> np.uint32(15)
            x *= np.uint32(0x846CA68B)
            x ^= x >> np.uint32(16)
    radius = np.sqrt(-2 * np.log(((x & np.uint32(0xFFFF)) + 0.5) / 65536))
    angle = (x >> np.uint32(16)) * (2 * math.pi / 65536)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**63 - 1, 0x9E3779B97F4A7C15])
def test_values_are_those_of_an_independent_formula(seed: int) -> None:
    np.testing.assert_allclose(normal_noise((2, 5000), seed).numpy().ravel(), reference(5000, seed), atol=2e-5)


def test_values_do_not_depend_on_how_the_work_is_cut() -> None:
    long = normal_noise((2, 140_000), 7).numpy().reshape(2, -1)
    np.testing.assert_array_equal(long[:, :100], normal_noise((2, 100), 7).numpy().reshape(2, -1))


def test_values_are_normally_distributed() -> None:
    values = normal_noise((60, 60, 60), 3).numpy().ravel()
    assert stats.kstest(values[::10], "norm").pvalue > 0.01
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs(stats.kurtosis(values)) < 0.05


def test_neighbors_and_seeds_are_uncorrelated() -> None:
    first = normal_noise((40, 40, 40), 10).numpy().ravel()
    for lag in (1, 40, 1600):
        assert abs(np.corrcoef(first[:-lag], first[lag:])[0, 1]) < 0.02
    for seed in (11, 10 + (1 << 32), 10 + (1 << 62)):
        other = normal_noise((40, 40, 40), seed).numpy().ravel()
        for shift in (-1, 0, 1):
            assert abs(np.corrcoef(first, np.roll(other, shift))[0, 1]) < 0.02


@pytest.mark.parametrize("shape", [(1,), (3, 1, 1), (2, 3, 5), (0,)])
def test_any_shape_is_filled(shape: tuple[int, ...]) -> None:
    values = normal_noise(shape, 1)
    assert values.shape == shape
    assert values.isfinite().all()
