"""Pick the runtime for a network and a device, and say why."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vol3d.errors import RequirementError, UsageError
from vol3d.inference.runtimes.openvino_runtime import OpenVinoRuntime
from vol3d.inference.runtimes.torch_eager import TorchRuntime

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from vol3d.inference.runtimes.runtime import Runtime

logger = logging.getLogger(__name__)

RUNTIMES = ("auto", "torch", "openvino")


@dataclass(frozen=True)
class RuntimeOptions:
    """How to run a network.

    Args:
        name: ``"auto"``, ``"torch"`` or ``"openvino"``.
        precision: ``"auto"``, ``"f32"``, ``"bf16"`` or ``"f16"``; auto is f32 for torch.
        cache_dir: Where converted networks are kept; None keeps nothing.
    """

    name: str = "auto"
    precision: str = "auto"
    cache_dir: Path | str | None = None


def choose_runtime(
    network: nn.Module,
    device: torch.device | str,
    window_shape: tuple[int, int, int, int],
    options: RuntimeOptions | None = None,
) -> Runtime:
    """Return the runtime asked for, or with ``"auto"`` OpenVINO on a CPU where it is installed, else PyTorch.

    Args:
        network: In any mode; it is put into evaluation mode.
        device: Where it is to run.
        window_shape: ``C H W D`` of every window.
        options: Default: automatic.

    Returns:
        A runtime whose ``report`` says what was chosen and why.

    Raises:
        UsageError: If there is no runtime of that name, or OpenVINO is asked for on another device than the CPU.
        RequirementError: If OpenVINO is asked for and missing, or cannot convert the network.
    """
    options = options or RuntimeOptions()
    device = torch.device(device)
    if options.name not in RUNTIMES:
        raise UsageError(f"runtime must be one of {', '.join(RUNTIMES)}, got {options.name!r}; choose one")
    if options.name == "openvino" and device.type != "cpu":
        raise UsageError(f"device must be cpu for the runtime openvino, got {device}; use the runtime torch")
    torch_precision = "f32" if options.precision == "auto" else options.precision
    if options.name == "torch":
        return TorchRuntime(network, device, torch_precision)
    reason = "asked for"
    if options.name == "auto":
        if device.type != "cpu":
            return TorchRuntime(network, device, torch_precision, f"{device.type} is what PyTorch is made for")
        if importlib.util.find_spec("openvino") is None:
            reason = 'openvino is not installed (pip install "vol3d[cpu]" makes CPUs several times faster)'
            return TorchRuntime(network, device, torch_precision, reason)
        reason = "fastest on a CPU"
    try:
        return OpenVinoRuntime(
            network, window_shape, precision=options.precision, cache_dir=options.cache_dir, reason=reason
        )
    except RequirementError as error:
        if options.name == "openvino":
            raise
        logger.warning("%s", error)
        return TorchRuntime(network, device, torch_precision, f"OpenVINO cannot run it: {error}")
