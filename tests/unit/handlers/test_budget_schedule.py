from __future__ import annotations

import math
import time

import pytest
import torch
from ignite.engine import Engine, Events

from vol3d.errors import ConfigError
from vol3d.handlers.budget_schedule import BudgetSchedule

RATE = 0.1


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)


def run(schedule: BudgetSchedule, epochs: int, steps: int = 5) -> list[float]:
    """Return the learning rate of each step."""
    rates: list[float] = []
    engine = Engine(lambda *_: rates.append(schedule.optimizer.param_groups[0]["lr"]))
    schedule.attach(engine)
    engine.run(range(steps), max_epochs=epochs)
    return rates


class Clock:
    """A monotonic clock that advances only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    rates = run(BudgetSchedule(optimizer(), warmup_steps=2), epochs=2)
    expected = [0.5, 1.0] + [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates == pytest.approx([RATE * factor for factor in expected])


def test_training_ends_with_the_epoch_in_which_the_minutes_run_out(clock: Clock) -> None:
    schedule = BudgetSchedule(optimizer(), max_minutes=1.0)
    engine = Engine(lambda *_: None)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: setattr(clock, "now", clock.now + 5))
    completed: list[int] = []
    engine.add_event_handler(Events.COMPLETED, lambda engine: completed.append(engine.state.epoch))
    schedule.attach(engine)
    engine.run(range(5), max_epochs=100)
    assert completed == [3]  # 25, 50, 75 seconds
    assert schedule.spent_s == 75


def test_the_rate_follows_the_minutes_when_they_run_faster_than_the_epochs(clock: Clock) -> None:
    schedule = BudgetSchedule(optimizer(), max_minutes=1.0)
    rates: list[float] = []

    def step(*_: object) -> None:
        rates.append(schedule.optimizer.param_groups[0]["lr"])
        clock.now += 15

    engine = Engine(step)
    schedule.attach(engine)
    engine.run(range(1), max_epochs=100)
    # Done: 0, 15, 30 and 45 of 60 seconds.
    assert rates == pytest.approx([RATE * 0.5 * (1 + math.cos(math.pi * part)) for part in (0, 0.25, 0.5, 0.75)])


def test_a_resumed_run_keeps_its_rates_and_the_time_it_has_spent(clock: Clock) -> None:
    first = BudgetSchedule(optimizer(), max_minutes=1.0)
    run(first, epochs=1)
    clock.now += 20
    state = first.state_dict()
    clock.now += 1000  # nobody trains in between
    resumed_optimizer = optimizer()
    resumed_optimizer.param_groups[0]["lr"] = 0.003  # as a checkpoint's optimizer has it
    second = BudgetSchedule(resumed_optimizer, max_minutes=1.0)
    second.load_state_dict(state)
    assert second.spent_s == 20
    rates = run(second, epochs=1)
    assert rates[0] == pytest.approx(RATE * 0.5 * (1 + math.cos(math.pi / 3)))


def test_minutes_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="max_minutes must be positive, got 0"):
        BudgetSchedule(optimizer(), max_minutes=0)
