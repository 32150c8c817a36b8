"""What one window costs a network, found without computing anything: operations, live memory, output channels."""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vol3d.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NetworkCost:
    """The cost of one window.

    Args:
        flops: Floating-point operations, a multiplication and an addition counted as two.
        activation_bytes: Largest sum of all tensors alive at one time, weights excluded, in float32.
        weight_bytes: Parameters and buffers.
        num_channels: Channels of the output.
    """

    flops: int
    activation_bytes: int
    weight_bytes: int
    num_channels: int

    def scaled(self, factor: float) -> NetworkCost:
        """Return the cost of a window of ``factor`` times as many voxels."""
        return replace(self, flops=int(self.flops * factor), activation_bytes=int(self.activation_bytes * factor))


def network_cost(network: nn.Module, window_shape: tuple[int, int, int, int]) -> NetworkCost:
    """Run a copy of the network on PyTorch's meta device, which has shapes but no numbers.

    Args:
        network: Any network of one input and one output tensor.
        window_shape: ``C H W D`` of one window.

    Raises:
        UsageError: If the network does not take such a window.
    """
    weights = [*network.parameters(), *network.buffers()]
    clone = copy.deepcopy(network).to("meta").eval()
    live = _LiveBytes()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter, live:
            output = clone(torch.empty((1, *window_shape), device="meta"))
    except (RuntimeError, ValueError, IndexError, NotImplementedError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"network must take windows of {window_shape}, got: {line}; give its roi_size") from error
    return NetworkCost(
        flops=int(counter.get_total_flops()),
        activation_bytes=live.peak,
        weight_bytes=sum(w.numel() * w.element_size() for w in weights),
        num_channels=int(output.shape[1]),
    )


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, and takes them off when they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.now -= num_bytes
