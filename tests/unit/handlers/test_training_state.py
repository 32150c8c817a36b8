"""Checkpoints of a small trainer; the whole training of a bundle is tested in tests/bundles."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from ignite.engine import Engine, Events
from torch import distributed, nn

from vol3d.data.epoch_sampler import EpochSampler
from vol3d.errors import ConfigError, IncompleteError, UsageError
from vol3d.handlers.training_state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CASES, EPOCHS = 6, 3


class Run:
    """A trainer whose every step draws from all three random states."""

    def __init__(self, path: Path, resume: bool = False, epochs: int = EPOCHS, seed: int = 0) -> None:
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        self.sampler = EpochSampler(range(CASES), seed=seed)
        self.loader = torch.utils.data.DataLoader(
            list(range(CASES)), batch_size=2, sampler=self.sampler, generator=torch.Generator()
        )
        self.engine = Engine(self.step)
        self.seen: list[list[int]] = []
        self.state = TrainingState(path, {"network": self.network}, self.sampler, resume)
        self.state.attach(self.engine)
        self.epochs = epochs

    def step(self, _engine: Engine, batch: torch.Tensor) -> None:
        self.seen.append(batch.tolist())
        draw = torch.rand(1) + np.random.random() + random.random()  # noqa: S311 - nothing secret
        with torch.no_grad():
            self.network.weight.add_(draw.item() * batch.sum().item())

    def start(self) -> float:
        self.engine.run(self.loader, max_epochs=self.epochs)
        return self.network.weight.item()


def run_process(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    run = Run(Path(folder) / "state.pt")
    run.sampler.rank, run.sampler.world_size, run.state.rank = rank, 2, rank
    if rank == 1:
        stop_at(run, 2, terminate)
    try:
        run.start()
    except IncompleteError as error:
        (Path(folder) / f"stopped{rank}.txt").write_text(str(error))
    distributed.destroy_process_group()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def set_seeds() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


@pytest.fixture(autouse=True)
def kept_signal_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def stop_at(run: Run, iteration: int, action: Callable[[], Any]) -> None:
    run.engine.add_event_handler(Events.ITERATION_STARTED(once=iteration), action)


@pytest.mark.parametrize("iteration", range(1, CASES // 2 * EPOCHS))
def test_a_stopped_run_sees_the_same_cases_and_random_numbers(tmp_path: Path, iteration: int) -> None:
    set_seeds()
    whole = Run(tmp_path / "whole.pt")
    expected = whole.start()

    set_seeds()
    stopped = Run(tmp_path / "stopped.pt")
    stop_at(stopped, iteration, terminate)
    with pytest.raises(IncompleteError, match=f"after iteration {iteration}; continue it with resume"):
        stopped.start()
    random.seed(77)
    np.random.seed(77)
    torch.manual_seed(77)
    resumed = Run(tmp_path / "stopped.pt", resume=True)
    assert resumed.start() == pytest.approx(expected, abs=1e-6)
    assert stopped.seen + resumed.seen == whole.seen


def test_checkpoint_loads_with_weights_only_and_nothing_else_is_left(tmp_path: Path) -> None:
    Run(tmp_path / "state.pt").start()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert set(state) == {"items", "sampler", "engine", "random"}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_failure_while_writing_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "state.pt")
    run.start()
    before = (tmp_path / "state.pt").read_bytes()

    def fail(state: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        run.state.save(run.engine)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    run = Run(tmp_path / "state.pt")
    run.state.rank = 1
    run.start()
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_that_is_resumed_has_nothing_to_do(tmp_path: Path) -> None:
    set_seeds()
    expected = Run(tmp_path / "state.pt").start()
    resumed = Run(tmp_path / "state.pt", resume=True)
    assert resumed.start() == expected
    assert resumed.seen == []


def test_an_existing_checkpoint_is_not_overwritten_by_a_new_run(tmp_path: Path) -> None:
    Run(tmp_path / "state.pt").start()
    with pytest.raises(UsageError, match="checkpoint must not exist already"):
        Run(tmp_path / "state.pt").start()


def test_resuming_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="resume must find a checkpoint, got none"):
        Run(tmp_path / "state.pt", resume=True).start()


def test_other_epochs_seeds_or_items_are_not_continued(tmp_path: Path) -> None:
    Run(tmp_path / "state.pt").start()
    with pytest.raises(ConfigError, match="max_epochs must be 3 as in the checkpoint, got 4"):
        Run(tmp_path / "state.pt", resume=True, epochs=4).start()
    with pytest.raises(ConfigError, match="must keep its data and seed"):
        Run(tmp_path / "state.pt", resume=True, seed=1).start()
    other = Run(tmp_path / "state.pt", resume=True)
    other.state.items["average"] = other.network
    with pytest.raises(ConfigError, match="checkpoint must hold"):
        other.start()


def test_a_refused_checkpoint_changes_nothing(tmp_path: Path) -> None:
    Run(tmp_path / "state.pt").start()
    other = Run(tmp_path / "state.pt", resume=True, seed=1)
    with pytest.raises(ConfigError):
        other.start()
    assert other.network.weight.item() == 0.0


def test_processes_stop_together_when_one_is_told_to(tmp_path: Path) -> None:
    port = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port
    mp.spawn(run_process, args=(port, str(tmp_path)), nprocs=2)
    for rank in (0, 1):
        assert "after iteration 2" in (tmp_path / f"stopped{rank}.txt").read_text()
    assert len(torch.load(tmp_path / "state.pt", weights_only=True)["random"]) == 2
