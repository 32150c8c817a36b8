"""What to do when a device runs out of memory in the middle of a volume: go on in smaller steps, and say so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from vol3d.errors import RequirementError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of PyTorch means that a device, or the host, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU allocator has no error type of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def call_in_halves(network: Callable[..., torch.Tensor], windows: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Run a network on a batch, in ever smaller parts if the device cannot hold all of it.

    Args:
        network: Maps ``N C H W D`` to ``N K H W D``.
        windows: ``N C H W D`` with at least one window.

    Returns:
        The output of all windows, and how many of them went into one call: use it for the next batch.

    Raises:
        RequirementError: If one window alone does not fit.
    """
    size = len(windows)
    while True:
        try:
            outputs = [network(part) for part in torch.split(windows, size)]
            return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise RequirementError(
                    f"{windows.device} must hold one window of {tuple(windows.shape[1:])}, got out of memory; "
                    "use a smaller roi_size or a device with more memory"
                ) from error
        size = (size + 1) // 2
        if windows.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning("%s ran out of memory; going on with %d windows per call", windows.device, size)
