"""A training that was interrupted ends with the weights of one that was not."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from ignite.engine import Events

from vol3d.bundle.workflow import open_workflow
from vol3d.errors import ConfigError, IncompleteError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from vol3d.bundle.layout import BundleLayout

TASK = "_segmentation"
EPOCHS = 4  # of two iterations each
Interrupt = Callable[[Any], None]


@pytest.fixture(autouse=True)
def kept_signal_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def small(phantoms: Path) -> dict[str, Any]:
    return {
        "dataset_dir": str(phantoms),
        "device": "$torch.device('cpu')",
        "max_epochs": EPOCHS,
        "val_interval": 2,
        "compile": False,
        "patch_size": [16, 16, 16],
        "network_def::channels": [4, 8],
        "warmup_steps": 2,
    }


def train(layout: BundleLayout, settings: dict[str, Any], folder: Path, interrupt: Interrupt | None = None) -> None:
    workflow = open_workflow(layout, "train", {**settings, "output_dir": str(folder)})
    workflow.initialize()
    if interrupt is not None:
        interrupt(workflow.trainer)
    try:
        workflow.run()
    except RuntimeError as error:  # MONAI wraps what an expression of a config raises
        raise error.__cause__ or error from None
    workflow.finalize()


def at_iteration(number: int, action: Callable[[], None]) -> Interrupt:
    def register(trainer: Any) -> None:
        trainer.add_event_handler(Events.ITERATION_STARTED(once=number), action)

    return register


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise KeyboardInterrupt


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / "model.pt", weights_only=True)
    return loaded


def log_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "training_log.csv").open(newline="") as file:
        return [{key: row[key] for key in row if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def uninterrupted(layout: BundleLayout, small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(layout, small, folder)
    return folder


@pytest.mark.parametrize("iteration", [1, 3, 4, 7], ids=lambda number: f"iteration {number}")
def test_after_sigterm_training_continues_to_the_same_weights(
    layout: BundleLayout, small: dict[str, Any], uninterrupted: Path, tmp_path: Path, iteration: int
) -> None:
    with pytest.raises(IncompleteError, match=f"after iteration {iteration}; continue it with resume"):
        train(layout, small, tmp_path, at_iteration(iteration, terminate))
    assert not (tmp_path / "model.pt").exists()
    train(layout, {**small, "resume": True}, tmp_path)
    expected = weights(uninterrupted)
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0)


def test_after_a_kill_training_continues_from_the_last_whole_epoch(
    layout: BundleLayout, small: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(layout, small, tmp_path, at_iteration(6, crash))
    train(layout, {**small, "resume": True}, tmp_path)
    expected = weights(uninterrupted)
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0)
    assert log_rows(tmp_path) == log_rows(uninterrupted)


def test_a_run_can_be_interrupted_more_than_once(
    layout: BundleLayout, small: dict[str, Any], uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.raises(IncompleteError):
        train(layout, small, tmp_path, at_iteration(3, terminate))
    with pytest.raises(IncompleteError):
        train(layout, {**small, "resume": True}, tmp_path, at_iteration(5, terminate))
    train(layout, {**small, "resume": True}, tmp_path)
    expected = weights(uninterrupted)
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0)


def test_the_checkpoint_holds_the_complete_state_and_loads_with_weights_only(uninterrupted: Path) -> None:
    state = torch.load(uninterrupted / "training_state.pt", weights_only=True)
    assert set(state["items"]) == {"network", "average", "optimizer", "schedule"}
    assert state["engine"] == {"iteration": 2 * EPOCHS, "epoch_length": 2, "max_epochs": EPOCHS}
    assert [set(random) for random in state["random"]] == [{"torch", "cuda", "numpy", "python"}]
    assert state["items"]["average"]["num_steps"] == 2 * EPOCHS


def test_the_result_is_the_averaged_network(uninterrupted: Path) -> None:
    state = torch.load(uninterrupted / "training_state.pt", weights_only=True)
    for name, value in weights(uninterrupted).items():
        assert value.equal(state["items"]["average"]["network"][name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_epochs": 9}, "max_epochs must be 4 as in the checkpoint, got 9"),
        ({"seed": 1}, "must keep its data and seed"),
        ({"batch_size": 1}, "epoch_length must be 2 as in the checkpoint, got 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_with_other_settings_is_not_continued(
    layout: BundleLayout, small: dict[str, Any], uninterrupted: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(layout, {**small, "resume": True, **change}, uninterrupted)


def test_a_second_run_does_not_replace_the_first(
    layout: BundleLayout, small: dict[str, Any], uninterrupted: Path
) -> None:
    with pytest.raises(UsageError, match="checkpoint must not exist already"):
        train(layout, small, uninterrupted)


def test_there_must_be_something_to_resume(layout: BundleLayout, small: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="resume must find a checkpoint, got none"):
        train(layout, {**small, "resume": True}, tmp_path)
