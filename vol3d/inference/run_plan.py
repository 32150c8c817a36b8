"""What a run will cost before it starts: windows, operations, peak memory and minutes; and what fits at all."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import psutil
import torch

from vol3d.data.byte_size import format_bytes
from vol3d.errors import RequirementError, UsageError
from vol3d.inference.restore import CHUNK_BYTES
from vol3d.inference.window_plan import FLOAT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vol3d.inference.network_cost import NetworkCost
    from vol3d.inference.sliding_window import StreamingSlidingWindowInferer
    from vol3d.inference.window_plan import Triple, WindowPlan

logger = logging.getLogger(__name__)

# Convolution libraries keep reordered copies of their inputs and outputs and scratch space beside the tensors that
# PyTorch knows of. How much differs between networks and processors; this is a cautious guess, not a measurement.
SCRATCH_FACTOR = 1.7

# A chunk of logits, its interpolated copy and the indices of its surface voxels.
RESTORE_BYTES = 4 * CHUNK_BYTES

# Windows shrink in steps that networks with up to four strides of 2 take.
WINDOW_STEP = 16

FREE_SHARE = 0.8


@dataclass(frozen=True)
class RunRequest:
    """What is to be run.

    Args:
        volume_shape: Voxels of the network's grid along ``H W D``.
        cost: Of one window of the inferer's ``roi_size``; see :func:`~vol3d.inference.network_cost.network_cost`.
        held_bytes: Memory that is taken throughout: the network's input, the scan, the label map and other outputs.
        num_passes: Calls of a network for each window (flips, members of an ensemble).
        is_needed: Test of the skip rule for this volume; see the inferer's ``skip``.
    """

    volume_shape: Triple
    cost: NetworkCost
    held_bytes: int
    num_passes: int = 1
    is_needed: Callable[[Any], bool] | None = None


@dataclass(frozen=True)
class RunPlan:
    """A run that fits, and its price.

    Args:
        roi_size: Window along ``H W D``.
        sw_batch_size: Windows per call of the network.
        num_tiles: Tiles along each axis.
        num_windows: Windows to compute; those that two tiles share count twice.
        num_skipped: Windows that lie outside the body.
        flops: Operations of all windows and passes.
        fusion_bytes: Accumulators; the inferer's ``memory_bytes``.
        peak_bytes: Everything together.
        memory_bytes: What was allowed.
        steps: What was changed to make the run fit, in words, in order.
        seconds_per_window: Measured by a probe; None without one.
    """

    roi_size: Triple
    sw_batch_size: int
    num_tiles: Triple
    num_windows: int
    num_skipped: int
    flops: int
    fusion_bytes: int
    peak_bytes: int
    memory_bytes: int
    steps: tuple[str, ...] = ()
    seconds_per_window: float | None = None

    @property
    def expected_seconds(self) -> float | None:
        """Time of the network stage; None without a probe."""
        return None if self.seconds_per_window is None else self.num_windows * self.seconds_per_window

    def apply(self, inferer: StreamingSlidingWindowInferer) -> StreamingSlidingWindowInferer:
        """Return the inferer with the plan's window, batch and memory limit."""
        return replace(
            inferer, roi_size=self.roi_size, sw_batch_size=self.sw_batch_size, memory_bytes=self.fusion_bytes
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, units in the names."""
        return {**asdict(self), "expected_seconds": self.expected_seconds}


def plan_run(
    inferer: StreamingSlidingWindowInferer,
    request: RunRequest,
    memory_bytes: int | None = None,
    *,
    may_shrink_window: bool = False,
) -> RunPlan:
    """Return how the run fits into memory, changing as little as possible, in this order.

    1. Fewer windows per call, which changes nothing but the time.
    2. Tiles, which compute the windows at their borders twice and change no result.
    3. A smaller window, only if ``may_shrink_window``: labels then differ a little from those of the bundle's window.

    Each step is logged and kept in the plan.

    Args:
        inferer: The settings to start from.
        request: What is to be run.
        memory_bytes: Limit for the whole run; default: four fifths of what the machine, or the GPU, has free.
        may_shrink_window: Whether step 3 is allowed.

    Raises:
        RequirementError: If the run does not fit; the message names the memory that it takes.
    """
    limit = memory_bytes or free_bytes(inferer.device or "cpu")
    roi_size = inferer.plan(request.volume_shape).roi_size
    tried: list[RunPlan] = []
    for window in _shrinking(roi_size) if may_shrink_window else [roi_size]:
        scaled = replace(request, cost=request.cost.scaled(math.prod(window) / math.prod(roi_size)))
        for batch, can_tile in [*((batch, False) for batch in _halves(inferer.sw_batch_size)), (1, True)]:
            trial = replace(inferer, roi_size=window, sw_batch_size=batch)
            tried.append(_fit(trial, scaled, limit, can_tile=can_tile))
            if tried[-1].peak_bytes <= limit:
                return _with_steps(tried[-1], tried[0])
    raise RequirementError(
        f"memory must be at least {format_bytes(min(plan.peak_bytes for plan in tried))} for {request.volume_shape} "
        f"voxels, {request.cost.num_channels} channels and windows of {roi_size}, got {format_bytes(limit)}; "
        "allow more memory, write fewer outputs, or use a smaller window"
    )


def free_bytes(device: torch.device | str) -> int:
    """Return four fifths of the memory that is free on a device now."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * FREE_SHARE)
    return int(psutil.virtual_memory().available * FREE_SHARE)


def probe_seconds(
    inferer: StreamingSlidingWindowInferer, volume: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor]
) -> float:
    """Return the seconds that a window takes, measured on the middle of the volume.

    The first call is not counted: it compiles, allocates and compares the runtime with eager PyTorch, for which the
    middle of the volume is a better place than its corner.

    Args:
        inferer: Its window and batch size are used.
        volume: ``C H W D``.
        network: What the stream is going to run.
    """
    plan = inferer.plan(volume.shape[1:])
    windows = _middle_window(volume, plan).repeat(inferer.sw_batch_size, 1, 1, 1, 1)
    windows = windows.to(inferer.sw_device or volume.device)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.no_grad():
            network(windows)
        if windows.device.type == "cuda":
            torch.cuda.synchronize(windows.device)
        seconds = time.perf_counter() - start
    return seconds / inferer.sw_batch_size


def _middle_window(volume: torch.Tensor, plan: WindowPlan) -> torch.Tensor:
    window = volume.new_zeros((1, len(volume), *plan.roi_size))
    middle = [(size - roi) // 2 for size, roi in zip(plan.padded_shape, plan.roi_size, strict=True)]
    ranges = plan.window_in_volume((middle[0], middle[1], middle[2]))
    along_h, along_w, along_d = (slice(*ends) for ends in ranges)
    part = volume[:, along_h, along_w, along_d]
    window[0, :, : part.shape[1], : part.shape[2], : part.shape[3]] = part
    return window


def _fit(inferer: StreamingSlidingWindowInferer, request: RunRequest, limit: int, *, can_tile: bool) -> RunPlan:
    windows = inferer.plan(request.volume_shape)
    cost, batch = request.cost, inferer.sw_batch_size
    per_window = cost.activation_bytes * SCRATCH_FACTOR + FLOAT_BYTES * cost.num_channels * math.prod(windows.roi_size)
    others = request.held_bytes + cost.weight_bytes + RESTORE_BYTES + int(batch * per_window)
    if can_tile:
        # What still does not fit with the smallest tiles is reported by the caller, with all the memory it takes.
        with contextlib.suppress(UsageError):
            windows = windows.within(limit - others, cost.num_channels)
    kept = windows.keep(request.is_needed) if request.is_needed else None
    tiled = [layer.starts for tile in windows.tiles() for layer in windows.layers(windows.tile_with_halo(tile))]
    computed = sum(len(starts) if kept is None else sum(s in kept for s in starts) for starts in tiled)
    fusion_bytes = windows.fusion_bytes(cost.num_channels)
    return RunPlan(
        roi_size=windows.roi_size,
        sw_batch_size=batch,
        num_tiles=windows.num_tiles,
        num_windows=computed,
        num_skipped=0 if kept is None else windows.num_windows - len(kept),
        flops=computed * request.num_passes * cost.flops,
        fusion_bytes=fusion_bytes,
        peak_bytes=others + fusion_bytes,
        memory_bytes=limit,
    )


def _with_steps(plan: RunPlan, wanted: RunPlan) -> RunPlan:
    steps = []
    if plan.sw_batch_size != wanted.sw_batch_size:
        steps.append(f"{plan.sw_batch_size} instead of {wanted.sw_batch_size} windows per call")
    if plan.num_tiles != wanted.num_tiles:
        steps.append(f"{math.prod(plan.num_tiles)} tiles, {plan.num_windows} instead of {wanted.num_windows} windows")
    if plan.roi_size != wanted.roi_size:
        steps.append(f"windows of {plan.roi_size} instead of {wanted.roi_size}: labels may differ a little")
    for step in steps:
        logger.warning("to fit into %s: %s", format_bytes(plan.memory_bytes), step)
    return replace(plan, steps=tuple(steps))


def _halves(number: int) -> Iterator[int]:
    while number >= 1:
        yield number
        number //= 2


def _shrinking(window: Triple) -> Iterator[Triple]:
    edges = list(window)
    while True:
        yield (edges[0], edges[1], edges[2])
        axis = edges.index(max(edges))
        smaller = (edges[axis] - 1) // WINDOW_STEP * WINDOW_STEP
        if smaller < 2 * WINDOW_STEP:
            return
        edges[axis] = smaller
