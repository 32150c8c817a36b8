"""Eager PyTorch on any device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vol3d.errors import UsageError
from vol3d.inference.runtimes.runtime import RuntimeReport

if TYPE_CHECKING:
    from torch import nn

PRECISIONS = {"f32": None, "bf16": torch.bfloat16, "f16": torch.float16}


class TorchRuntime:
    """Runs a network as it is, in inference mode and with channels last, which is faster on CPUs and GPUs alike.

    Args:
        network: Put into evaluation mode and moved to ``device``.
        device: Any PyTorch device.
        precision: ``"f32"``; ``"bf16"`` or ``"f16"`` use automatic mixed precision.
        reason: Why this runtime was chosen, for the report.

    Raises:
        UsageError: If the precision is unknown.
    """

    def __init__(
        self, network: nn.Module, device: torch.device | str = "cpu", precision: str = "f32", reason: str = "asked for"
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}; choose one")
        self._device = torch.device(device)
        # nn.Module.to knows no memory format without a positional device in the type stubs' eyes.
        self._network = network.eval().to(self._device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._amp_dtype = PRECISIONS[precision]
        self._report = RuntimeReport("torch", str(self._device), precision, reason)
        self._is_checked = self._amp_dtype is None

    @property
    def report(self) -> RuntimeReport:
        """See :class:`~vol3d.inference.runtimes.runtime.Runtime`."""
        return self._report

    @property
    def windows_per_call(self) -> int:
        """One: a window of medical size fills a CPU, and most GPUs."""
        return 1

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Return float32 logits of ``windows`` on the runtime's device."""
        windows = windows.to(self._device, memory_format=torch.channels_last_3d)
        with torch.inference_mode():
            logits = self._forward(windows)
            if not self._is_checked:
                self._is_checked = True
                difference, dice = agreement(logits[:1], self._network(windows[:1]))
                self._report = replace(self._report, max_difference=difference, foreground_dice=dice)
        return logits

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        if self._amp_dtype is None:
            logits: torch.Tensor = self._network(windows)
            return logits
        with torch.autocast(self._device.type, self._amp_dtype):
            logits = self._network(windows)
        return logits.float()


def agreement(logits: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """Return how far two tensors of logits ``N K H W D`` are apart, and the Dice score of their foregrounds.

    Labels are the highest class, or with one channel the sign. The Dice score pools all classes but the background:
    1 if every foreground voxel has the same label in both, or neither has any; 0 if a logit is not finite.
    """
    difference = float((logits - expected).abs().max())
    if not bool(logits.isfinite().all()):
        return difference, 0.0
    labels, truth = (t.argmax(dim=1) if t.shape[1] > 1 else (t[:, 0] > 0).long() for t in (logits, expected))
    total = int((labels > 0).sum() + (truth > 0).sum())
    shared = int(((labels == truth) & (truth > 0)).sum())
    return difference, 2 * shared / total if total else 1.0
