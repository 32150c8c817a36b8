"""One copy from the host to the device for all small arrays of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

HostArrays = Mapping[str, Sequence[NDArray[Any]]]
DeviceArrays = dict[str, list[torch.Tensor]]


def upload_arrays(samples: Sequence[HostArrays], device: torch.device) -> list[DeviceArrays]:
    """Return the arrays of each sample as float32 tensors on the device, under the same names.

    They are views of one buffer; to a CUDA device it goes from pinned memory, so nothing waits for the copy.

    Example:
        >>> upload_arrays([{"eye": [np.eye(2)]}], torch.device("cpu"))
        [{'eye': [tensor([[1., 0.],
                [0., 1.]])]}]
    """
    num_values = sum(array.size for sample in samples for arrays in sample.values() for array in arrays)
    buffer = torch.empty(num_values, dtype=torch.float32, pin_memory=device.type == "cuda")
    host, begin = buffer.numpy(), 0
    for sample in samples:
        for arrays in sample.values():
            for array in arrays:
                host[begin : begin + array.size] = np.ravel(array)
                begin += array.size
    moved, begin = buffer.to(device, non_blocking=True), 0
    results: list[DeviceArrays] = []
    for sample in samples:
        result: DeviceArrays = {name: [] for name in sample}
        for name, arrays in sample.items():
            for array in arrays:
                size = math.prod(array.shape)
                result[name].append(moved[begin : begin + size].view(array.shape))
                begin += size
        results.append(result)
    return results
