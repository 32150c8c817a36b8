"""A sliding window that hands out finished slabs instead of holding classes times volume.

Windows, overlap and blending are those of ``monai.inferers.sliding_window_inference`` and so are the fused logits
(differences are those of float32 rounding). What differs: the windows run layer by layer along one axis, and a slab
leaves as soon as no later window touches it, so memory is one layer of accumulators whatever the length of the
volume; see :mod:`vol3d.inference.window_plan` for layers, slabs and tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer

from vol3d.errors import UsageError
from vol3d.inference.blend_weights import blend_weights
from vol3d.inference.fusion import HALO, SlabFusion, background_levels
from vol3d.inference.out_of_memory import call_in_halves
from vol3d.inference.window_plan import Box, Triple, WindowPlan, plan_windows

Network = Callable[..., torch.Tensor]
SkipRule = Callable[[torch.Tensor], Callable[[Box], bool]]


@dataclass(frozen=True)
class FusedSlab:
    """A finished part of the fused volume.

    Args:
        values: Logits (or probabilities, if the network returns them), ``C H W D`` of ``box``. A view into the
            accumulators: copy what must outlive the next step of the stream.
        box: Ranges of ``values`` in the volume.
        owned: ``box`` without its halo: the one voxel on each low side that another slab owns.
    """

    values: torch.Tensor
    box: Box
    owned: Box


@dataclass
class StreamingSlidingWindowInferer(Inferer):
    """Drop-in for ``monai.inferers.SlidingWindowInferer`` that can also stream its result.

    It runs without gradients and needs a network with one output tensor of the window's size.

    Args:
        roi_size: Window along ``H W D``; non-positive entries take the volume's size.
        sw_batch_size: Windows per call of the network.
        overlap: Shared part of neighbouring windows, in ``[0, 1)``, one number or one per axis.
        mode: ``"gaussian"`` or ``"constant"`` blending.
        sigma_scale: Standard deviation of the Gaussian as a part of the window.
        padding_mode: How a volume smaller than the window is padded, as in ``torch.nn.functional.pad``.
        cval: Fill value of constant padding.
        sw_device: Where the network runs; default: where the volume is.
        device: Where windows are fused; default: where the volume is.
        skip: Rule that receives the volume (``C H W D``) and returns the test "is this box needed?"; windows it
            refuses are not computed, and voxels of refused windows only are background with certainty.
        is_probability: Whether the network returns probabilities; decides what "background" is for skipped voxels.
        memory_bytes: Limit of the accumulators; as many tiles as needed are used to obey it.
        num_channels: Channels of the network's output; spares the one window that is otherwise run to learn them
            when ``skip`` or ``memory_bytes`` is given.
        slab_axis: Axis along which slabs are finished; default: the one that needs the least memory.
        on_progress: Called with (windows done, windows in all) after each call of the network.
        fit_roi: Shorten the window where the volume is shorter, instead of padding the volume as MONAI does: padding
            shifts the statistics of norm layers. Needs a network that takes any size.

    Example:
        >>> inferer = StreamingSlidingWindowInferer(roi_size=4, overlap=0.5, mode="constant")
        >>> inferer(torch.ones(1, 1, 6, 6, 9), lambda windows: 2 * windows).unique()
        tensor([2.])
    """

    roi_size: Sequence[int] | int
    sw_batch_size: int = 1
    overlap: Sequence[float] | float = 0.25
    mode: str = "gaussian"
    sigma_scale: Sequence[float] | float = 0.125
    padding_mode: str = "constant"
    cval: float = 0.0
    sw_device: torch.device | str | None = None
    device: torch.device | str | None = None
    skip: SkipRule | None = None
    is_probability: bool = False
    memory_bytes: int | None = None
    num_channels: int | None = None
    slab_axis: int | None = None
    on_progress: Callable[[int, int], None] | None = None
    fit_roi: bool = False

    def __post_init__(self) -> None:
        if self.sw_batch_size < 1:
            raise UsageError(f"sw_batch_size must be at least 1, got {self.sw_batch_size}; give windows per call")
        blend_weights((1, 1, 1), self.mode, self.sigma_scale)
        plan_windows((1, 1, 1), self.roi_size, self.overlap, self.slab_axis)

    def __call__(self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the fused output of the whole volume, as MONAI's inferer does.

        Args:
            inputs: ``B C H W D``; a ``MetaTensor`` keeps its metadata.
            network: Maps windows ``N C H W D`` to one tensor ``N K H W D``.
            args: Passed on to ``network``.
            kwargs: Passed on to ``network``.

        Returns:
            ``B K H W D`` with the dtype of ``inputs``, on ``device``.

        Raises:
            UsageError: If the input has not five axes, or the network's output does not fit its windows.
        """
        if inputs.ndim != 5:
            raise UsageError(f"inputs must be B C H W D, got shape {tuple(inputs.shape)}; add the missing axes")
        output: torch.Tensor | None = None
        for index, volume in enumerate(inputs):
            for slab in self.stream(volume, network, *args, **kwargs):
                if output is None:
                    shape = (inputs.shape[0], slab.values.shape[0], *inputs.shape[2:])
                    output = torch.empty(shape, dtype=inputs.dtype, device=slab.values.device)
                along_h, along_w, along_d = (slice(*ends) for ends in slab.box)
                output[index, :, along_h, along_w, along_d] = slab.values
        if output is None:
            raise UsageError("inputs must hold at least one volume, got an empty batch; check the data loader")
        # MONAI's evaluators expect the metadata of the image on its prediction.
        return MetaTensor(output, meta=dict(inputs.meta)) if isinstance(inputs, MetaTensor) else output

    def plan(self, volume_shape: Sequence[int]) -> WindowPlan:
        """Return the windows for a volume of that shape (``H W D``), before tiling."""
        roi_size = self.roi_size
        if self.fit_roi:
            wanted = [roi_size] * 3 if isinstance(roi_size, int) else roi_size
            roi_size = [min(roi, size) for roi, size in zip(wanted, volume_shape, strict=True)]
        return plan_windows(volume_shape, roi_size, self.overlap, self.slab_axis)

    def stream(self, volume: torch.Tensor, network: Network, *args: Any, **kwargs: Any) -> Iterator[FusedSlab]:
        """Yield the fused volume slab by slab, tile after tile; each voxel is owned by exactly one slab.

        Args:
            volume: ``C H W D``.
            network: As in :meth:`__call__`.
            args: Passed on to ``network``.
            kwargs: Passed on to ``network``.

        Raises:
            UsageError: If the network's output does not fit its windows, or ``memory_bytes`` cannot be obeyed.
            RequirementError: If the device cannot hold a single window.
        """
        if volume.ndim != 4 or volume.numel() == 0:
            raise UsageError(f"volume must be C H W D with voxels, got {tuple(volume.shape)}; stream one volume")
        if "condition" in kwargs:
            raise UsageError("network must take windows alone, got a condition volume; use MONAI's inferer for it")
        yield from _Run(self, volume, lambda windows: network(windows, *args, **kwargs)).slabs()


class _Run:
    """One volume on its way through the network."""

    def __init__(self, inferer: StreamingSlidingWindowInferer, volume: torch.Tensor, network: Network) -> None:
        self.inferer = inferer
        self.network = network
        self.device = torch.device(inferer.device or volume.device)
        self.sw_device = torch.device(inferer.sw_device or volume.device)
        self.plan = inferer.plan(volume.shape[1:])
        # The rule may need the affine, which is why the metadata are dropped only afterwards.
        self.kept = self.plan.keep(inferer.skip(volume)) if inferer.skip else None
        plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        self.volume = _pad(plain, self.plan, inferer.padding_mode, inferer.cval)
        self.weights = blend_weights(self.plan.roi_size, inferer.mode, inferer.sigma_scale).to(self.device)
        self.batch_size = inferer.sw_batch_size
        self.num_channels = inferer.num_channels or 0
        if not self.num_channels and (inferer.skip or inferer.memory_bytes):
            self.predict([(0, 0, 0)])
        if inferer.memory_bytes:
            self.plan = self.plan.within(inferer.memory_bytes, self.num_channels)
        self.num_done = 0
        self.num_windows = sum(len(starts) for tile in self.plan.tiles() for starts, _ in self.layers(tile))

    def slabs(self) -> Iterator[FusedSlab]:
        """Run the windows and yield what is final."""
        axis = self.plan.slab_axis
        for tile in self.plan.tiles():
            region = self.plan.tile_with_halo(tile)
            fusion = SlabFusion(region, axis, self.weights)
            for starts, slab in self.layers(tile):
                self.fuse(starts, fusion)
                length = slab[1] - slab[0]
                background = background_levels(self.num_channels, is_probability=self.inferer.is_probability)
                values = fusion.finish(length, background)
                box = _along(region, axis, (slab[0] - HALO, slab[1]))
                finished = self.in_volume(values, box, _along(tile, axis, slab))
                if finished is not None:
                    yield finished
                fusion.advance(length)

    def layers(self, tile: Box) -> Iterator[tuple[list[Triple], tuple[int, int]]]:
        """Yield the windows to compute and the slab of each layer of a tile."""
        for layer in self.plan.layers(self.plan.tile_with_halo(tile)):
            yield [s for s in layer.starts if self.kept is None or s in self.kept], layer.slab

    def fuse(self, starts: Sequence[Triple], fusion: SlabFusion) -> None:
        """Compute one layer's windows and blend them in."""
        first = 0
        while first < len(starts):
            batch = starts[first : first + self.batch_size]
            for values, start in zip(self.predict(batch), batch, strict=True):
                fusion.add(values, start)
            first += len(batch)
            self.num_done += len(batch)
            if self.inferer.on_progress:
                self.inferer.on_progress(self.num_done, self.num_windows)

    def predict(self, starts: Sequence[Triple]) -> torch.Tensor:
        """Return the network's output ``N K h w d`` for the windows at ``starts``."""
        windows = torch.stack([self.volume[(slice(None), *self.window(start))] for start in starts])
        if self.sw_device.type == "cuda" and windows.device.type == "cpu":
            windows = windows.pin_memory()
        windows = windows.to(self.sw_device, non_blocking=True)
        with torch.no_grad():
            values, size = call_in_halves(self.network, windows)
        if size < len(starts):
            self.batch_size = size
        _check_output(values, windows)
        self.num_channels = values.shape[1]
        return values

    def window(self, start: Triple) -> tuple[slice, ...]:
        """Return the slices of a window in the padded volume."""
        return tuple(slice(s, s + roi) for s, roi in zip(start, self.plan.roi_size, strict=True))

    def in_volume(self, values: torch.Tensor, region: Box, owned: Box) -> FusedSlab | None:
        """Cut the padding off a slab; None if the slab is padding only."""
        cut, box, mine = [], [], []
        axes = zip(region, owned, self.plan.pad_before, self.plan.volume_shape, strict=True)
        for (low, high), (own_low, own_high), pad, size in axes:
            start, stop = max(low - pad, 0), min(high - pad, size)
            own = (max(own_low - pad, 0), min(own_high - pad, size))
            if own[1] <= own[0]:
                return None
            cut.append(slice(start + pad - low, stop + pad - low))
            box.append((start, stop))
            mine.append(own)
        view = values[(slice(None), *cut)]
        return FusedSlab(view, (box[0], box[1], box[2]), (mine[0], mine[1], mine[2]))


def _along(box: Box, axis: int, ends: tuple[int, int]) -> Box:
    ranges = [*box]
    ranges[axis] = ends
    return (ranges[0], ranges[1], ranges[2])


def _pad(volume: torch.Tensor, plan: WindowPlan, mode: str, cval: float) -> torch.Tensor:
    if plan.padded_shape == plan.volume_shape:
        return volume
    amounts: list[int] = []
    for before, padded, size in zip(plan.pad_before, plan.padded_shape, plan.volume_shape, strict=True):
        amounts = [before, padded - size - before, *amounts]
    # Torch pads three axes by other modes than "constant" only with a batch axis.
    return F.pad(volume[None], amounts, mode=mode, value=cval if mode == "constant" else None)[0]


def _check_output(values: Any, windows: torch.Tensor) -> None:
    if not isinstance(values, torch.Tensor):
        raise UsageError(
            f"network must return one tensor, got {type(values).__name__}; wrap it to return the output to fuse"
        )
    if values.ndim != 5 or values.shape[0] != windows.shape[0] or values.shape[2:] != windows.shape[2:]:
        raise UsageError(
            f"network must return its windows' size, got {tuple(values.shape)} for {tuple(windows.shape)}; "
            "use monai.inferers.SlidingWindowInferer for outputs of another resolution"
        )
