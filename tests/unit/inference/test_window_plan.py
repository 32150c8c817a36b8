"""Windows, layers, slabs and tiles: arithmetic against MONAI and by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices
from monai.inferers.utils import _get_scan_interval

from vol3d.errors import UsageError
from vol3d.inference.window_plan import plan_windows

SHAPES = st.tuples(*[st.integers(1, 40)] * 3)


@settings(max_examples=200, deadline=None)
@given(shape=SHAPES, roi=SHAPES, overlap=st.tuples(*[st.floats(0, 0.99)] * 3))
def test_windows_are_those_of_monai_in_its_order(shape: Any, roi: Any, overlap: Any) -> None:
    plan = plan_windows(shape, roi, overlap)
    padded = tuple(max(pair) for pair in zip(shape, roi, strict=True))
    theirs = dense_patch_slices(padded, roi, _get_scan_interval(padded, roi, 3, overlap))
    assert list(product(*plan.starts)) == [tuple(s.start for s in window) for window in theirs]
    assert plan.padded_shape == padded
    assert plan.num_windows == len(theirs)


@settings(max_examples=100, deadline=None)
@given(shape=SHAPES, roi=SHAPES, overlap=st.floats(0, 0.9), axis=st.sampled_from([None, 0, 1, 2]))
def test_a_slab_is_touched_by_no_later_layer(shape: Any, roi: Any, overlap: float, axis: int | None) -> None:
    plan = plan_windows(shape, roi, overlap, axis)
    end = 0
    layers = list(plan.layers())
    for number, layer in enumerate(layers):
        assert layer.slab[0] == end
        end = layer.slab[1]
        assert all(s[plan.slab_axis] >= end for later in layers[number + 1 :] for s in later.starts)
    assert end == plan.padded_shape[plan.slab_axis]
    assert sum(len(layer.starts) for layer in layers) == plan.num_windows


def test_starts_by_hand() -> None:
    plan = plan_windows((100, 96, 60), 64, 0.25)
    assert plan.starts == ((0, 36), (0, 32), (0,))
    assert plan.pad_before == (0, 0, 2)
    assert plan.window_in_volume((36, 32, 0)) == ((36, 100), (32, 96), (0, 60))


def test_the_slab_axis_is_the_one_that_needs_the_least_memory() -> None:
    assert plan_windows((512, 512, 1000), 96).slab_axis == 2
    assert plan_windows((512, 512, 100), 96).slab_axis == 1
    assert plan_windows((96, 96, 96), 96).slab_axis == 2


def test_memory_is_flat_in_slices() -> None:
    sizes = {plan_windows((512, 512, slices), 96).fusion_bytes(100) for slices in (512, 1000, 4000)}
    assert sizes == {512 * 512 * 97 * 101 * 4}


def test_tiles_cover_the_volume_and_share_only_border_windows() -> None:
    plan = plan_windows((512, 512, 512), 96, 0.25).within(4 * 2**30, num_channels=100)
    assert plan.num_tiles == (2, 2, 1)
    assert plan.fusion_bytes(100) <= 4 * 2**30
    covered = sum((b[0][1] - b[0][0]) * (b[1][1] - b[1][0]) * (b[2][1] - b[2][0]) for b in plan.tiles())
    assert covered == 512**3
    # Starts 0 72 144 216 288 360 416: only the window at 216 holds the cut at 256 and the halo at 255, so that the
    # halves run 4 + 4 windows along an axis where the whole runs 7.
    assert (plan.num_windows, plan.num_computed) == (343, 8 * 8 * 7)


def test_a_memory_limit_below_one_window_is_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"memory must hold \d+ bytes .* got 1000"):
        plan_windows((64, 64, 64), 32).within(1000, num_channels=2)


def test_needed_windows_are_asked_for_in_volume_coordinates() -> None:
    plan = plan_windows((4, 4, 12), (8, 4, 4), 0)
    boxes = []
    kept = plan.keep(lambda box: bool(boxes.append(box)) or box[2][0] == 8)
    assert kept == {(0, 0, 8)}
    assert boxes[0] == ((0, 4), (0, 4), (0, 4))


@pytest.mark.parametrize("shape", [(4, 4), (4, 0, 4), (4, 4, 4, 4)])
def test_shapes_without_three_positive_axes_are_refused(shape: Any) -> None:
    with pytest.raises(UsageError, match="volume_shape must have 3 axes"):
        plan_windows(shape, 4)
