"""Two real gloo processes: their gradients are those of one process with the whole batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from vol3d.engines.process_group import ProcessGroup
from vol3d.errors import RequirementError, UsageError

IMAGES = torch.linspace(-1, 1, 24).reshape(4, 6)


def start_environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return int(store.port)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))


def train_step(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(start_environment(rank, 2, port))
    group = ProcessGroup(timeout_s=60)
    wrapped = torch.nn.parallel.DistributedDataParallel(network().to(group.device))
    wrapped(IMAGES[group.rank :: group.world_size]).square().mean().backward()
    gradients = [parameter.grad for parameter in wrapped.module.parameters()]
    torch.save(gradients, Path(folder) / f"{group.rank}.pt")
    group.close(wrapped)
    group.close(wrapped)
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert "pt_gloo_runloop" not in threads  # they abort the process when it ends before them


def test_gradients_of_two_processes_equal_those_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    mp.spawn(train_step, args=(free_port(), str(tmp_path)), nprocs=2)
    alone = network()
    alone(IMAGES).square().mean().backward()
    for rank in (0, 1):
        for gradient, parameter in zip(torch.load(tmp_path / f"{rank}.pt"), alone.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad)


def test_a_process_that_torchrun_did_not_start_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="started by torchrun, got no RANK"):
        ProcessGroup()


def test_more_processes_than_cuda_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in start_environment(rank=2, world_size=3, port=1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RequirementError, match="number of CUDA devices 2, got a process number 2"):
        ProcessGroup()
