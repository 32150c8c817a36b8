"""What every runtime offers, and the record of the one that was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


class Runtime(Protocol):
    """A network ready to run: a callable from windows ``N C H W D`` to logits ``N K H W D``, both float32."""

    @property
    def report(self) -> RuntimeReport:
        """What runs and how well it was found to agree with eager PyTorch; final after the first call."""
        ...

    @property
    def windows_per_call(self) -> int:
        """The batch size that keeps the device busy with the least memory."""
        ...

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of windows."""
        ...


@dataclass(frozen=True)
class RuntimeReport:
    """Facts about a runtime for logs, plans and run records.

    Args:
        name: ``"torch"`` or ``"openvino"``.
        device: Where it runs.
        precision: ``"f32"``, ``"bf16"`` or ``"f16"``.
        reason: Why it was chosen, one clause.
        max_difference: Largest difference to eager float32 PyTorch on the first window; None if it is eager float32
            itself, or has not run yet.
        foreground_dice: Dice score between the two foregrounds of that window; None as above.
    """

    name: str
    device: str
    precision: str
    reason: str = ""
    max_difference: float | None = None
    foreground_dice: float | None = None
