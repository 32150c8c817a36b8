"""``vol3d evaluate``: score a bundle on the labeled cases of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vol3d.cli.admission import LevelOption, UnconfinedOption, admit, locate
from vol3d.cli.console import out, progress_bar
from vol3d.cli.options import BundleArgument, DataOption, DeviceOption, SetOption, assignments, config_path
from vol3d.errors import OutputError


def evaluate(
    bundle: BundleArgument,
    data: DataOption,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT", help="Folder for the tables [runs/BUNDLE-scores].")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON {case: {class: dice}} to compare with, case by case.")
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Average over the mirror images the bundle declares.")] = False,
    device: DeviceOption = "auto",
    settings: SetOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the scores of an earlier run.")] = False,
    level: LevelOption = "data-only",
    unconfined: UnconfinedOption = False,
) -> None:
    """Score on the validation cases: Dice, HD95, NSD and volumes per case, with bootstrap intervals."""
    from vol3d.data.output_folder import require_writable

    path = locate(bundle)
    overrides = assignments(settings)
    folder = output or Path("runs") / f"{path.name}-scores"
    require_writable(folder)
    layout = admit(path, level, unconfined, read=[data], write=[folder])
    if "ckpt_path" not in overrides:
        layout.require_weights()

    from ignite.engine import Events

    from vol3d.bundle.config_errors import config_errors
    from vol3d.bundle.load import choose_device, load_weights
    from vol3d.bundle.workflow import open_workflow
    from vol3d.handlers.score_table import SUMMARY_NAME, TABLE_NAME
    from vol3d.metrics.score_summary import format_summary

    if (folder / TABLE_NAME).exists() and not overwrite:
        raise OutputError(f"output must not exist already, got scores in {folder}; add --overwrite or choose another")
    overrides |= {
        "dataset_dir": config_path(data),
        "output_dir": config_path(folder),
        "device": f"$torch.device({str(choose_device(device))!r})",
    }
    if tta:
        overrides["tta"] = True
    if baseline:
        overrides["baseline"] = config_path(baseline)
    workflow = open_workflow(layout, "evaluate", overrides)
    with config_errors(layout.name):
        workflow.initialize()
        evaluator = workflow.evaluator
    # MONAI's CheckpointLoader would take what fits of a checkpoint, and end in a traceback where shapes differ.
    load_weights(workflow.network_def, workflow.parser.get_parsed_content("ckpt_path"), layout.name)
    with progress_bar("evaluating", total=len(workflow.dataset)) as bar:
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda _: bar.advance(1, "evaluating"))
        workflow.run()
    workflow.finalize()
    summary = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))
    out.print(format_summary(summary))
    out.print(f"per case: {folder / TABLE_NAME}")
