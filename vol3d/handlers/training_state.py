"""Checkpoints from which training continues as if it had never stopped.

MONAI's ``CheckpointSaver`` keeps what it is given, but not the random states, writes in place, and ignores SIGTERM.
"""

from __future__ import annotations

import logging
import random
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ignite.engine import Events
from torch import distributed

from vol3d.data.atomic_write import atomic_path
from vol3d.errors import ConfigError, IncompleteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vol3d.data.epoch_sampler import EpochSampler

logger = logging.getLogger(__name__)


class TrainingState:
    """Save everything a run needs to continue, after every epoch and on SIGTERM; restore it with ``resume``.

    The file holds the items' states, the random states of Python, numpy and torch, and the engine's position; it loads
    with ``weights_only``. Attach it last, so that what the other handlers did in an epoch is in the file. Loaders must
    not draw from the global random state: give them a ``generator`` of their own.

    Args:
        path: Checkpoint file, replaced atomically.
        items: Objects with ``state_dict`` and ``load_state_dict`` (network, average, optimizer, schedule, ...).
        sampler: Order of the cases; on a stop within an epoch the finished batches are not repeated.
        resume: Continue from ``path``.
        rank: Only rank 0 writes; every rank reads.

    Raises:
        UsageError: When training starts, if there is no checkpoint to resume from, or one is there already and
            ``resume`` is off.
        ConfigError: When training starts, if the checkpoint belongs to a run with other settings.
        IncompleteError: From the running engine after SIGTERM, once the checkpoint is written.
    """

    def __init__(
        self, path: Path | str, items: Mapping[str, Any], sampler: EpochSampler, resume: bool = False, rank: int = 0
    ) -> None:
        self.path = str(path)
        self.items = dict(items)
        self.sampler = sampler
        self.resume = resume
        self.rank = rank
        self._stop_requested = threading.Event()

    def attach(self, engine: Any) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._skip_finished)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop_if_requested)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Any) -> None:
        """Write the checkpoint of the present moment; every rank must call, rank 0 writes."""
        random_states = _gather(_random_state())
        if self.rank != 0:
            return
        state = {
            "items": {name: item.state_dict() for name, item in self.items.items()},
            "sampler": self.sampler.state_dict(),
            "engine": {
                "iteration": engine.state.iteration,
                "epoch_length": engine.state.epoch_length,
                "max_epochs": engine.state.max_epochs,
            },
            "random": random_states,
        }
        with atomic_path(self.path) as aside:
            torch.save(state, aside)

    def _start(self, engine: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self._stop_requested.set())
        if self.resume:
            self._restore(engine)
        elif Path(self.path).exists():
            raise UsageError(f"checkpoint must not exist already, got {self.path}; resume it or change output_dir")

    def _restore(self, engine: Any) -> None:
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise UsageError(
                f"resume must find a checkpoint, got none at {self.path}; train without it first"
            ) from error
        saved = state["engine"]
        for name, own in (("max_epochs", engine.state.max_epochs), ("epoch_length", engine.state.epoch_length)):
            if saved[name] != own:
                raise ConfigError(f"{name} must be {saved[name]} as in the checkpoint, got {own}; keep it to resume")
        if set(state["items"]) != set(self.items):
            raise ConfigError(f"checkpoint must hold {sorted(self.items)}, got {sorted(state['items'])}")
        self.sampler.load_state_dict(state["sampler"])
        for name, item in self.items.items():
            item.load_state_dict(state["items"][name])
        engine.state.iteration = saved["iteration"]
        engine.state.epoch = saved["iteration"] // saved["epoch_length"]
        _set_random_state(state["random"][self.rank])
        logger.info("resumed after iteration %d (epoch %d)", saved["iteration"], engine.state.epoch)

    def _skip_finished(self, engine: Any) -> None:
        finished = engine.state.iteration - (engine.state.epoch - 1) * engine.state.epoch_length
        batch_size = getattr(engine.state.dataloader, "batch_size", None) or 1
        self.sampler.set_epoch(engine.state.epoch, skip_cases=finished * batch_size)

    def _stop_if_requested(self, engine: Any) -> None:
        if not _on_any_rank(self._stop_requested.is_set()):
            return
        self.save(engine)
        raise IncompleteError(
            f"training stopped by SIGTERM after iteration {engine.state.iteration}; continue it with resume"
        )


def _on_any_rank(own: bool) -> bool:
    # The signal reaches the processes at different iterations; all must stop at the same one, or each would wait for
    # the other in different collectives.
    if not distributed.is_initialized():
        return own
    on_device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    flag = torch.tensor(int(own), device=on_device)
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag.item())


def _gather(own: dict[str, Any]) -> list[dict[str, Any]]:
    if not distributed.is_initialized():
        return [own]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, own)
    return gathered


def _random_state() -> dict[str, Any]:
    # numpy's and Python's states as plain lists, because weights_only refuses their own types.
    name, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(words), gauss_next],
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
