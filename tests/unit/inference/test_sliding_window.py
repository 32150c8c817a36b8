"""The streaming inferer against MONAI's sliding window, its oracle."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference

from vol3d.errors import RequirementError, UsageError
from vol3d.inference.sliding_window import StreamingSlidingWindowInferer


def position_dependent(windows: torch.Tensor) -> torch.Tensor:
    """A "network" whose answer for a voxel depends on where it lies in the window, as padding makes real ones do."""
    ramps = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in windows.shape[2:]], indexing="ij")
    first = windows.sum(1, keepdim=True)
    return torch.cat([first * ramps[0], first.roll(1, -1) + ramps[1], ramps[2] - first**2], 1)


def as_monai(volume: torch.Tensor, roi: Any, **options: Any) -> torch.Tensor:
    return sliding_window_inference(volume, roi, 1, position_dependent, **options)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 17)] * 3),
    roi=st.tuples(*[st.integers(2, 12)] * 3),
    overlap=st.tuples(*[st.floats(0, 0.95)] * 3),
    mode=st.sampled_from(["constant", "gaussian"]),
    batch=st.integers(1, 5),
    channels=st.integers(1, 3),
    axis=st.sampled_from([None, 0, 1, 2]),
)
def test_fused_logits_equal_those_of_monai(
    shape: Any, roi: Any, overlap: Any, mode: str, batch: int, channels: int, axis: int | None
) -> None:
    volume = torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(sum(shape)))
    ours = StreamingSlidingWindowInferer(roi, batch, overlap, mode, slab_axis=axis)(volume, position_dependent)
    theirs = as_monai(volume, roi, overlap=overlap, mode=mode)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    top = theirs.topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > 1e-4
    assert torch.equal(ours.argmax(1)[clear], theirs.argmax(1)[clear])


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(6, 20)] * 3),
    roi=st.tuples(*[st.integers(2, 6)] * 3),
    overlap=st.floats(0, 0.7),
    axis=st.sampled_from([0, 1, 2]),
    share=st.floats(0.3, 1),
)
def test_tiles_change_nothing_and_obey_the_memory_limit(
    shape: Any, roi: Any, overlap: float, axis: int, share: float
) -> None:
    volume = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(sum(roi)))
    inferer = StreamingSlidingWindowInferer(roi, overlap=overlap, slab_axis=axis)
    inferer.memory_bytes = int(inferer.plan(shape).fusion_bytes(3) * share)
    with contextlib.suppress(UsageError):
        plan = inferer.plan(shape).within(inferer.memory_bytes, 3)
        assert plan.fusion_bytes(3) <= inferer.memory_bytes
        ours = inferer(volume, position_dependent)
        theirs = as_monai(volume, roi, overlap=overlap, mode="gaussian")
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_share", [1.0, 0.5, 0.3])
def test_each_voxel_is_owned_by_exactly_one_slab(memory_share: float) -> None:
    shape = (19, 23, 17)
    inferer = StreamingSlidingWindowInferer((6, 5, 4), overlap=0.4)
    inferer.memory_bytes = int(inferer.plan(shape).fusion_bytes(3) * memory_share)
    owners = torch.zeros(shape)
    for slab in inferer.stream(torch.zeros(1, *shape), position_dependent):
        assert slab.values.shape[1:] == tuple(high - low for low, high in slab.box)
        assert all(b[0] <= o[0] <= o[1] <= b[1] for b, o in zip(slab.box, slab.owned, strict=True))
        owners[tuple(slice(*pair) for pair in slab.owned)] += 1
    assert torch.equal(owners, torch.ones(shape))


@pytest.mark.parametrize("padding", ["constant", "reflect", "replicate", "circular"])
def test_a_volume_smaller_than_the_window_is_padded_as_in_monai(padding: str) -> None:
    volume = torch.randn(2, 1, 5, 9, 6)
    options = {"padding_mode": padding, "cval": 3.0 if padding == "constant" else 0.0}
    ours = StreamingSlidingWindowInferer((8, 8, 8), mode="constant", **options)(volume, position_dependent)
    torch.testing.assert_close(ours, as_monai(volume, (8, 8, 8), mode="constant", **options))


def test_a_window_that_fits_is_shortened_instead_of_padding_the_volume() -> None:
    seen: list[tuple[int, ...]] = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(windows.shape[2:]))
        return windows

    volume = torch.rand(1, 1, 9, 5, 4, generator=torch.Generator().manual_seed(0))
    fused = StreamingSlidingWindowInferer(roi_size=(6, 8, 8), overlap=0.5, fit_roi=True)(volume, network)
    assert set(seen) == {(6, 5, 4)}
    torch.testing.assert_close(fused, volume)


def test_batches_metadata_and_dtype_come_back_as_with_monai() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    volume = MetaTensor(torch.randn(3, 2, 7, 8, 9, dtype=torch.float64), affine=affine)
    ours = StreamingSlidingWindowInferer(4, 2, 0.5, "constant")(volume, lambda x: x.mean(1, keepdim=True))
    assert isinstance(ours, MetaTensor)
    assert ours.dtype == torch.float64
    assert torch.equal(ours.affine, affine)
    torch.testing.assert_close(ours.as_tensor(), volume.as_tensor().mean(1, keepdim=True))


def test_nonpositive_roi_takes_the_whole_axis() -> None:
    volume = torch.randn(1, 1, 5, 6, 11)
    ours = StreamingSlidingWindowInferer((-1, 0, 4))(volume, position_dependent)
    torch.testing.assert_close(ours, as_monai(volume, (-1, 0, 4), mode="gaussian"))


def test_extra_arguments_reach_the_network() -> None:
    inferer = StreamingSlidingWindowInferer(3, mode="constant")
    result = inferer(torch.ones(1, 1, 5, 5, 5), lambda x, k, shift: k * x + shift, 2, shift=1)
    assert torch.equal(result, torch.full((1, 1, 5, 5, 5), 3.0))


def test_progress_counts_every_window_once_and_ends_full() -> None:
    seen: list[tuple[int, int]] = []
    inferer = StreamingSlidingWindowInferer(4, 3, 0.5, on_progress=lambda done, total: seen.append((done, total)))
    inferer(torch.zeros(1, 1, 9, 9, 9), position_dependent)
    assert seen[-1] == (64, 64)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.parametrize(("channels", "is_probability", "level"), [(3, False, 30), (3, True, 1), (1, False, -30)])
def test_windows_that_are_not_needed_are_not_run_and_become_background(
    channels: int, is_probability: bool, level: float
) -> None:
    calls = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        calls.append(len(windows))
        return windows.repeat(1, channels, 1, 1, 1)

    # Only the windows that hold voxels below 4 along the first axis are needed: of starts 0 4 8 that is one.
    inferer = StreamingSlidingWindowInferer(
        4,
        overlap=0,
        skip=lambda _: lambda box: box[0][0] < 4,
        is_probability=is_probability,
        num_channels=channels,
    )
    result = inferer(torch.full((1, 1, 12, 4, 4), 0.5), network)
    assert sum(calls) == 1
    assert torch.equal(result[:, :, :4], torch.full((1, channels, 4, 4, 4), 0.5))
    assert torch.equal(result[:, 0, 4:], torch.full((1, 8, 4, 4), float(level)))
    assert not result[:, 1:, 4:].any()


def test_the_skip_rule_sees_the_affine_of_the_volume() -> None:
    def rule(volume: torch.Tensor) -> Any:
        assert isinstance(volume, MetaTensor)
        return lambda _: float(volume.affine[0, 0]) == 2.0

    volume = MetaTensor(torch.ones(1, 1, 4, 4, 4), affine=torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0])))
    assert StreamingSlidingWindowInferer(4, skip=rule)(volume, lambda x: x).mean() == 1


def test_a_volume_without_any_needed_window_is_background() -> None:
    inferer = StreamingSlidingWindowInferer(4, skip=lambda _: lambda _: False)
    assert not inferer(torch.ones(1, 1, 9, 9, 9), position_dependent).argmax(1).any()


def test_running_out_of_memory_halves_the_batch_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    def small_device(windows: torch.Tensor) -> torch.Tensor:
        if len(windows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(windows))
        return windows

    volume = torch.randn(1, 1, 8, 8, 8)
    result = StreamingSlidingWindowInferer(4, 8, 0)(volume, small_device)
    torch.testing.assert_close(result, volume)
    assert sizes == [2] * 4
    assert "going on with 2 windows per call" in caplog.text


def test_a_device_too_small_for_one_window_is_named() -> None:
    def full(windows: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RequirementError, match=r"one window of \(1, 4, 4, 4\)"):
        StreamingSlidingWindowInferer(4, 2)(torch.zeros(1, 1, 8, 8, 8), full)


def test_other_errors_of_the_network_pass_through() -> None:
    def broken(windows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        StreamingSlidingWindowInferer(4)(torch.zeros(1, 1, 8, 8, 8), broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roi_size": 4, "sw_batch_size": 0}, "sw_batch_size must be at least 1, got 0"),
        ({"roi_size": 4, "overlap": 1.0}, "overlap must be at least 0 and below 1, got 1.0"),
        ({"roi_size": 4, "mode": "linear"}, "mode must be one of constant, gaussian, got 'linear'"),
        ({"roi_size": (4, 4)}, "roi_size and overlap must have 3 entries"),
        ({"roi_size": 4, "slab_axis": 3}, "slab_axis must be 0, 1 or 2, got 3"),
        ({"roi_size": 4, "sigma_scale": 0.0}, "sigma_scale must be positive, got 0.0"),
    ],
)
def test_wrong_options_are_refused_when_the_inferer_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StreamingSlidingWindowInferer(**options)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x: (x, x), "network must return one tensor, got tuple"),
        (lambda x: x[:, :, ::2], r"network must return its windows' size, got \(1, 1, 2, 4, 4\)"),
    ],
)
def test_networks_whose_output_cannot_be_fused_are_refused(network: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StreamingSlidingWindowInferer(4)(torch.zeros(1, 1, 8, 8, 8), network)


@pytest.mark.parametrize("shape", [(1, 4, 4, 4), (0, 1, 4, 4, 4), (1, 1, 0, 4, 4)])
def test_inputs_without_batch_axis_or_voxels_are_refused(shape: Any) -> None:
    with pytest.raises(UsageError, match="must"):
        StreamingSlidingWindowInferer(4)(torch.zeros(shape), position_dependent)


def test_a_condition_volume_is_refused_instead_of_passed_whole() -> None:
    with pytest.raises(UsageError, match="condition"):
        StreamingSlidingWindowInferer(4)(torch.zeros(1, 1, 4, 4, 4), position_dependent, condition=torch.zeros(1))


def test_slabs_arrive_in_order_and_never_hold_more_than_a_window_along_the_axis() -> None:
    inferer = StreamingSlidingWindowInferer(4, overlap=0.5, slab_axis=2)
    ends = [slab.box[2] for slab in inferer.stream(torch.zeros(1, 5, 5, 33), position_dependent)]
    assert ends[0][0] == 0
    assert ends[-1][1] == 33
    assert all(before[1] == after[0] + 1 for before, after in itertools.pairwise(ends)), "one voxel of halo"
    assert max(high - low for low, high in ends) <= 4 + 1
