from __future__ import annotations

import numpy as np
import pytest

from vol3d.data.stored_volume import rescale, scaled_dtype


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "bits", "expected"),
    [
        ("u1", 1, 0, None, "u1"),
        (">i2", 1, 0, None, "i2"),
        ("f2", 1, 0, None, "f4"),
        ("f8", 2.5, 0, None, "f8"),
        ("i2", 4, 0, None, "i4"),
        ("u1", 1, -100, None, "i2"),
        ("u2", 1, -1024, None, "i4"),
        ("u2", 1, -1024, 12, "i2"),
        ("i2", 1, -1024, 12, "i2"),
        ("i2", -1, 0, None, "i4"),
        ("i4", 1e6, 0, None, "i8"),
        ("i8", 4, 0, None, "f8"),
        ("i2", 0.5, 0, None, "f4"),
        ("i4", 0.5, 0, None, "f8"),
    ],
)
def test_the_type_of_scaled_voxels_holds_every_possible_value(
    stored: str, slope: float, intercept: float, bits: int | None, expected: str
) -> None:
    assert scaled_dtype(np.dtype(stored), float(slope), float(intercept), bits) == np.dtype(expected)


def test_scaling_is_exact_at_both_ends_of_the_range() -> None:
    stored = np.array([-32768, 32767], dtype=np.int16).reshape(2, 1, 1)
    assert rescale(stored, 4.0, -7.0).ravel().tolist() == [-32768 * 4 - 7, 32767 * 4 - 7]
    assert rescale(stored, 0.5, 0.25).ravel().tolist() == [-16383.75, 16383.75]
