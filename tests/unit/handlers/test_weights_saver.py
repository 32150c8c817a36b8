"""The file that a training leaves: small, plain, whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from ignite.engine import Engine
from torch import nn

from vol3d.handlers.weights_saver import WeightsSaver

if TYPE_CHECKING:
    from pathlib import Path


def finish(saver: WeightsSaver) -> None:
    engine = Engine(lambda _engine, _batch: None)
    saver.attach(engine)
    engine.run([0])


def test_weights_load_with_weights_only_and_are_the_networks(tmp_path: Path) -> None:
    network = nn.Conv3d(1, 2, 3)
    finish(WeightsSaver(str(tmp_path / "new" / "model.pt"), network))
    loaded = torch.load(tmp_path / "new" / "model.pt", weights_only=True)
    assert {name: tuple(value.shape) for name, value in loaded.items()} == {"weight": (2, 1, 3, 3, 3), "bias": (2,)}
    assert loaded["weight"].equal(network.weight)
    assert not loaded["weight"].requires_grad


def test_a_view_does_not_drag_its_storage_into_the_file(tmp_path: Path) -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight = nn.Parameter(torch.zeros(1000, 1000)[:1, :1])
    finish(WeightsSaver(str(tmp_path / "model.pt"), network))
    assert (tmp_path / "model.pt").stat().st_size < 10_000


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    finish(WeightsSaver(str(tmp_path / "model.pt"), nn.Linear(1, 1), rank=1))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_before_the_end(tmp_path: Path) -> None:
    engine = Engine(lambda _engine, _batch: seen.append(list(tmp_path.iterdir())))
    seen: list[list[Path]] = []
    WeightsSaver(str(tmp_path / "model.pt"), nn.Linear(1, 1)).attach(engine)
    engine.run([0, 1], max_epochs=2)
    assert seen == [[]] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
