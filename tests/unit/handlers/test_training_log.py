"""The CSV of a training: a row per epoch, none lost or doubled when training is resumed."""

from __future__ import annotations

import csv
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Engine, Events

from vol3d.handlers.training_log import COLUMNS, TrainingLog, step_loss

if TYPE_CHECKING:
    from pathlib import Path


def optimizer(rate: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def train(log: TrainingLog, losses: list[float], max_epochs: int, start_epoch: int = 0, validator: Any = None) -> None:
    engine = Engine(lambda _engine, loss: {"loss": torch.tensor(loss)})
    if validator is not None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, validator)
    if start_epoch:

        @engine.on(Events.STARTED)
        def resume(engine: Engine) -> None:
            engine.state.epoch = start_epoch
            engine.state.iteration = start_epoch * len(losses)

    log.attach(engine)
    engine.run(losses, max_epochs=max_epochs)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return list(reader)


def test_each_epoch_has_its_mean_loss_and_learning_rate(tmp_path: Path) -> None:
    train(TrainingLog(str(tmp_path / "log.csv"), optimizer(0.0125)), [1.0, 2.0, 6.0], max_epochs=2)
    assert [(row["epoch"], row["train_loss"], row["learning_rate"]) for row in rows(tmp_path / "log.csv")] == [
        ("1", "3.00000", "0.0125"),
        ("2", "3.00000", "0.0125"),
    ]


def test_seconds_never_go_back(tmp_path: Path) -> None:
    train(TrainingLog(str(tmp_path / "log.csv"), optimizer()), [1.0], max_epochs=3)
    seconds = [float(row["seconds"]) for row in rows(tmp_path / "log.csv")]
    assert seconds == sorted(seconds)


def test_validation_is_logged_only_in_the_epochs_that_had_one(tmp_path: Path) -> None:
    evaluator = SimpleNamespace(state=SimpleNamespace(epoch=0, metrics={}))

    def validate(engine: Engine) -> None:
        if engine.state.epoch % 2 == 0:
            evaluator.state.epoch = engine.state.epoch
            evaluator.state.metrics = {"mean_dice": engine.state.epoch / 10}

    log = TrainingLog(str(tmp_path / "log.csv"), optimizer(), evaluator)
    train(log, [1.0], max_epochs=4, validator=validate)
    assert [row["val_mean_dice"] for row in rows(tmp_path / "log.csv")] == ["", "0.20000", "", "0.40000"]


def test_a_resumed_run_drops_the_rows_after_its_checkpoint_and_continues_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    train(TrainingLog(str(path), optimizer()), [1.0], max_epochs=3)
    kept = rows(path)
    kept[1]["seconds"] = "100.0"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
    train(TrainingLog(str(path), optimizer()), [5.0], max_epochs=4, start_epoch=2)
    assert [(row["epoch"], row["train_loss"]) for row in rows(path)] == [
        ("1", "1.00000"),
        ("2", "1.00000"),
        ("3", "5.00000"),
        ("4", "5.00000"),
    ]
    assert float(rows(path)[2]["seconds"]) >= 100.0


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    train(TrainingLog(str(tmp_path / "log.csv"), optimizer(), rank=1), [1.0], max_epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_step_loss_reads_the_scalar_that_loggers_can_draw() -> None:
    assert step_loss({"loss": torch.tensor(2.5), "pred": torch.zeros(3)}).item() == 2.5
