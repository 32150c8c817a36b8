"""``vol3d demo``: both hippocampi of a whole head, with nothing to download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from vol3d.cli.console import out
from vol3d.cli.options import DeviceOption
from vol3d.errors import RequirementError

BUNDLE = "hippocampus_mr_segmentation"
TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
CENTERS_WORLD = {"left": (-27.0, -22.0, -15.0), "right": (27.0, -22.0, -15.0)}
# The median crop of the training data, which the intensities are normalized over.
CROP_MM = (35.0, 50.0, 36.0)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder for the results.")] = Path(
        "vol3d-demo"
    ),
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result.")] = False,
) -> None:
    """Segment both hippocampi of the ICBM152 T1 template (Fonov et al. 2009), which the nilearn package carries."""
    template = _template_path()

    from vol3d.bundle.catalog import find_bundle
    from vol3d.bundle.load import load_bundle
    from vol3d.data.cases import Case
    from vol3d.inference.bilateral import BilateralPredictor, Side
    from vol3d.inference.case_job import CaseJob
    from vol3d.report.segmentation_job import overlay_drawer, run_identity

    layout = find_bundle(BUNDLE)
    left, right = (
        Side(name, load_bundle(layout.root, device=device, overrides={"side": name}), center)
        for name, center in CENTERS_WORLD.items()
    )
    predictor = BilateralPredictor((left, right), CROP_MM)
    identity = run_identity(layout, str(left.predictor.device), {})
    draw = overlay_drawer(layout.name, predictor.class_names)
    job = CaseJob(predictor, identity, output, overwrite=overwrite, draw=draw)
    for outcome in job.run([Case("icbm152", template, "file")]):
        if outcome.error is not None:
            raise outcome.error
        for name in CENTERS_WORLD:
            parts = {key: value for key, value in outcome.report["volumes_ml"].items() if key.startswith(name)}
            detail = ", ".join(f"{key.removeprefix(name).strip()} {value:.2f}" for key, value in parts.items())
            out.print(f"{name} hippocampus {sum(parts.values()):.2f} ml ({detail})")
        out.print(f"label map, report and picture: {outcome.folder}")


def _template_path() -> Path:
    spec = find_spec("nilearn")  # found, not imported: only its data file is needed
    if spec is None or spec.origin is None:
        raise RequirementError("the demo must have the package nilearn, got none; run pip install 'vol3d[demo]'")
    template = Path(spec.origin).parent / TEMPLATE
    if not template.is_file():
        raise RequirementError(f"nilearn must carry its ICBM152 template, got none at {template}; reinstall nilearn")
    return template
