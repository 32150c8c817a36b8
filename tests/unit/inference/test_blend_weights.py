"""Blending weights against MONAI's importance map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map

from vol3d.errors import UsageError
from vol3d.inference.blend_weights import blend_weights


@settings(max_examples=60, deadline=None)
@given(
    roi=st.tuples(*[st.integers(1, 33)] * 3),
    mode=st.sampled_from(["constant", "gaussian"]),
    sigma=st.one_of(st.floats(0.05, 2), st.tuples(*[st.floats(0.05, 2)] * 3)),
)
def test_weights_are_bit_for_bit_those_of_monai(roi: Any, mode: str, sigma: Any) -> None:
    assert torch.equal(blend_weights(roi, mode, sigma), compute_importance_map(roi, mode, sigma))


def test_far_corners_are_clamped() -> None:
    assert float(blend_weights((64, 64, 64)).min()) == pytest.approx(1e-3)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="mode must be one of constant, gaussian, got 'cosine'"):
        blend_weights((4, 4, 4), "cosine")
