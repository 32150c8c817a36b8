"""``vol3d predict``: from scans to label maps on the scans' own grids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vol3d.cli.admission import LevelOption, UnconfinedOption, admit, locate
from vol3d.cli.console import err, out, progress_bar
from vol3d.cli.failure import case_exit_code, describe_error
from vol3d.cli.options import BundleArgument, DeviceOption, OutputOption, SetOption, assignments
from vol3d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vol3d.data.cases import Case
    from vol3d.inference.case_job import CaseOutcome


def predict(
    bundle: BundleArgument,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="NIfTI, NRRD or MHA files, a DICOM series folder, or a folder of cases."
        ),
    ],
    output: OutputOption,
    device: DeviceOption = "auto",
    settings: SetOption = None,
    series: Annotated[
        str | None, typer.Option(metavar="UID", help="Which series, where a DICOM folder holds several.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace results of another input, bundle or setting.")] = False,
    level: LevelOption = "data-only",
    unconfined: UnconfinedOption = False,
) -> None:
    """Run a bundle on scans; writes OUT/CASE with report.json, a picture and, of a segmentation, labels.nii.gz.

    Finished cases are skipped when input, bundle and settings are unchanged. A bad case never stops the others.
    """
    from vol3d.data.cases import find_cases
    from vol3d.data.output_folder import require_writable

    path = locate(bundle)
    overrides = assignments(settings)
    cases = find_cases(inputs)
    _check_output_apart(output, inputs, cases)
    require_writable(output)
    layout = admit(path, level, unconfined, read=inputs, write=[output])

    from vol3d.report.predict_job import predict_job

    job = predict_job(layout, output, device=device, overrides=overrides, overwrite=overwrite, series_uid=series)
    outcomes = []
    with progress_bar("predicting", total=len(cases)) as bar:
        for outcome in job.run(cases):
            with bar.hidden():
                _print_outcome(outcome)
            outcomes.append(outcome)
            bar.advance(1, outcome.case)
    failed = {outcome.case: outcome.error for outcome in outcomes if outcome.error is not None}
    if len(cases) > 1:
        counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed")}
        out.print(", ".join(f"{count} {status}" for status, count in counts.items()))
        for case, error in failed.items():
            out.print(f"failed {case}: {describe_error(error)}")
    if failed:
        raise typer.Exit(max(case_exit_code(error) for error in failed.values()))


def _check_output_apart(output: Path, inputs: Sequence[Path], cases: Sequence[Case]) -> None:
    """Refuse an output folder that a later run would take for input."""
    folder = output.resolve()
    series = [case.path.resolve() for case in cases if case.kind == "dicom"]
    if folder in [path.resolve() for path in inputs] or any(folder.is_relative_to(path) for path in series):
        raise UsageError(f"output must not be an input folder or lie in a DICOM folder, got {output}; choose another")


def _print_outcome(outcome: CaseOutcome) -> None:
    if outcome.error is not None:
        err.print(f"error: {outcome.case}: {describe_error(outcome.error)}", style="red")
        return
    note = " (unchanged, skipped)" if outcome.status == "skipped" else f" in {outcome.seconds:.1f} s"
    out.print(f"{outcome.case}: {outcome.report['summary']}{note} -> {outcome.folder}")
