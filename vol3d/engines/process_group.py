"""This process's place among those that ``torchrun`` started: rank, device, and the group they talk through.

In a bundle's ``multi_gpu.yaml``::

    process_group: { _target_: vol3d.engines.process_group.ProcessGroup }
    device: "$@process_group.device"
    rank: "$@process_group.rank"
    world_size: "$@process_group.world_size"
    finalize: ["$@process_group.close(@train_network)"]
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

# DistributedDataParallel imports this module, whose functions take the default group of the moment as a default
# argument and so keep it alive for ever (torch 2.13). Imported before there is a group, they keep nothing.
import torch.distributed.nn
from torch import distributed

from vol3d.errors import RequirementError, UsageError

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class ProcessGroup:
    """Join the group when made: over NCCL with one CUDA device per process, or over gloo on the CPU.

    Args:
        timeout_s: How long a process waits for another before it gives up.

    Attributes:
        rank: Number of this process.
        world_size: Number of processes.
        device: The CUDA device with the number of the process on its machine, or the CPU.

    Raises:
        UsageError: If the process was not started by ``torchrun``.
        RequirementError: If the machine has CUDA devices, but fewer than processes.
    """

    def __init__(self, timeout_s: float = 1800.0) -> None:
        missing = [name for name in _VARIABLES if name not in os.environ]
        if missing:
            raise UsageError(
                f"multi_gpu must be started by torchrun, got no {missing[0]} in the environment; "
                "see the command in the head of the config"
            )
        self.rank = int(os.environ["RANK"])
        self.world_size = int(os.environ["WORLD_SIZE"])
        self.device = _own_device(int(os.environ["LOCAL_RANK"]))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # collectives of objects go through the current device
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_s))

    def close(self, network: DistributedDataParallel | None = None) -> None:
        """Leave the group; harmless if it was left already.

        ``destroy_process_group`` only forgets the group, and ``network`` holds it too. Threads of gloo that outlive the
        interpreter abort the process now and then (torch 2.13), so the network lets go of the group first; it can
        neither train nor run afterwards, the module inside it can.

        Args:
            network: What averaged the gradients over this group.
        """
        if network is not None:
            for holder in ("process_group", "logger", "reducer"):
                setattr(network, holder, None)
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _own_device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise RequirementError(
            f"nproc_per_node must be at most the number of CUDA devices {torch.cuda.device_count()}, "
            f"got a process number {local_rank}; start fewer processes"
        )
    return torch.device("cuda", local_rank)
