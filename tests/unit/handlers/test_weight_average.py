"""The moving average of weights against its formula, step by step."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from vol3d.handlers.weight_average import WeightAverage


def set_weight(network: nn.Linear, value: float) -> None:
    with torch.no_grad():
        network.weight.fill_(value)


def test_average_follows_the_formula_with_its_warm_up() -> None:
    network = nn.Linear(1, 1, bias=False)
    set_weight(network, 0.0)
    average = WeightAverage(network, decay=0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 3.0, -2.0, 5.0, 8.0, 1.0, 1.0, 1.0, 1.0, 4.0], start=1):
        set_weight(network, value)
        average()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.network.weight.item() == pytest.approx(expected, rel=1e-6)


def test_average_is_a_copy_that_takes_no_gradient_and_stays_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    average = WeightAverage(network)
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_integer_buffers_are_copied() -> None:
    network = nn.BatchNorm3d(2)
    average = WeightAverage(network)
    network(torch.randn(2, 2, 3, 3, 3))
    average()
    assert average.network.num_batches_tracked.item() == 1


def test_it_moves_after_every_training_step() -> None:
    average = WeightAverage(nn.Linear(1, 1))
    trainer = Engine(lambda _engine, _batch: None)
    average.attach(trainer)
    trainer.run([0, 1, 2], max_epochs=2)
    assert average.num_steps == 6


def test_state_continues_in_another_process() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    first, second = WeightAverage(network), WeightAverage(nn.Linear(3, 2))
    set_weight(network, 2.0)
    first()
    second.load_state_dict(first.state_dict())
    second.source = network
    for average in (first, second):
        average()
    for own, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert own.equal(other)
    assert first.num_steps == second.num_steps == 2
