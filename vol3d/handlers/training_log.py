"""One CSV row per training epoch: what a training curve is drawn from."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Events
from torch import distributed

from vol3d.data.atomic_write import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

COLUMNS = ("epoch", "seconds", "learning_rate", "train_loss", "val_mean_dice")


class TrainingLog:
    """Write ``epoch,seconds,learning_rate,train_loss,val_mean_dice`` after every epoch.

    ``seconds`` is the wall time of the whole run, continued when training is resumed; ``val_mean_dice`` is empty where
    no validation ran. The file is replaced atomically; a resumed run drops the rows after its checkpoint.

    Args:
        path: The CSV file.
        optimizer: Its first group's learning rate is logged.
        evaluator: Validation engine whose ``state.metrics[metric]`` is logged, if there is one.
        metric: Name of that metric.
        rank: Only rank 0 writes; the loss is the mean over all ranks.
    """

    def __init__(
        self, path: str, optimizer: Optimizer, evaluator: Any = None, metric: str = "mean_dice", rank: int = 0
    ) -> None:
        self.path = Path(path)
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.metric = metric
        self.rank = rank
        self._rows: list[dict[str, str]] = []
        self._losses: list[torch.Tensor] = []
        self._started = 0.0

    def attach(self, engine: Any) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start_epoch(self, engine: Any) -> None:
        if self._started:
            return
        if engine.state.epoch > 1 and self.path.exists():
            with self.path.open(newline="") as file:
                self._rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < engine.state.epoch]
        past_s = float(self._rows[-1]["seconds"]) if self._rows else 0.0
        self._started = time.monotonic() - past_s

    def _collect(self, engine: Any) -> None:
        # Kept on the device: reading a value at every step would stall a GPU.
        self._losses.append(step_loss(engine.state.output).detach())

    def _write(self, engine: Any) -> None:
        epoch = engine.state.epoch
        train_loss = _mean_over_ranks(torch.stack(self._losses).mean())
        self._losses.clear()
        if self.rank != 0:
            return
        validated = self.evaluator is not None and getattr(self.evaluator.state, "epoch", 0) == epoch
        score = self.evaluator.state.metrics.get(self.metric) if validated else None
        row = {
            "epoch": str(epoch),
            "seconds": f"{time.monotonic() - self._started:.1f}",
            "learning_rate": f"{self.optimizer.param_groups[0]['lr']:.3g}",
            "train_loss": f"{train_loss:.5f}",
            "val_mean_dice": "" if score is None else f"{score:.5f}",
        }
        self._rows.append(row)
        with atomic_path(self.path) as aside, aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)


def step_loss(output: Mapping[str, Any]) -> Any:
    """Return the loss in an undecollated trainer's output, for MONAI's loggers.

    ``monai.handlers.from_engine`` makes a tuple of it there, which ``TensorBoardStatsHandler`` does not draw.
    """
    return output["loss"]


def _mean_over_ranks(value: torch.Tensor) -> float:
    if distributed.is_initialized():
        distributed.all_reduce(value)
        value = value / distributed.get_world_size()
    return value.item()
