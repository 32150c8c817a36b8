"""``vol3d train``: train a bundle's network on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vol3d.cli.admission import LevelOption, UnconfinedOption, admit, locate
from vol3d.cli.console import out, progress_bar
from vol3d.cli.options import BundleArgument, DataOption, DeviceOption, SetOption, assignments, config_path

if TYPE_CHECKING:
    from collections.abc import Callable


def train(
    bundle: BundleArgument,
    data: DataOption,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="Folder for checkpoints and logs [runs/BUNDLE]."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in OUT from its last checkpoint.")] = False,
    device: DeviceOption = "auto",
    settings: SetOption = None,
    level: LevelOption = "data-only",
    unconfined: UnconfinedOption = False,
) -> None:
    """Train from scratch; writes OUT/model.pt, training_log.csv, training_curve.png and a resumable checkpoint."""
    from vol3d.data.output_folder import require_writable

    path = locate(bundle)
    overrides = assignments(settings)
    folder = output or Path("runs") / path.name
    require_writable(folder)
    layout = admit(path, level, unconfined, read=[data], write=[folder])

    from vol3d.bundle.config_errors import config_errors
    from vol3d.bundle.load import choose_device
    from vol3d.bundle.workflow import open_workflow
    from vol3d.report.curve_figure import save_training_curve

    overrides |= {
        "dataset_dir": config_path(data),
        "output_dir": config_path(folder),
        "resume": resume,
        "device": f"$torch.device({str(choose_device(device))!r})",
    }
    workflow = open_workflow(layout, "train", overrides)
    with config_errors(layout.name):
        workflow.initialize()
        trainer = workflow.trainer
    with progress_bar("training", total=trainer.state.max_epochs) as bar:
        _follow(trainer, bar.advance)
        workflow.run()
    workflow.finalize()
    save_training_curve(folder / "training_curve.png", folder / "training_log.csv")
    out.print(f"trained {trainer.state.epoch} epochs -> {folder / 'model.pt'}")
    out.print(f"try it: vol3d evaluate {bundle} --data {data} --set ckpt_path={folder / 'model.pt'}")


def _follow(trainer: Any, advance: Callable[[float, str], None]) -> None:
    from ignite.engine import Events

    trainer.add_event_handler(Events.STARTED, lambda engine: advance(engine.state.epoch, "training"))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: advance(1, f"epoch {engine.state.epoch}"))
