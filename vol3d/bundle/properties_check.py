"""Do a bundle's configs have the keys that MONAI's workflows ask for? Builds nothing, so it needs no data.

MONAI's own ``ConfigWorkflow.check_properties`` builds data sets and engines, and crashes where an optional piece, such
as the handlers of an engine, is written in place instead of under its own key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.utils import BundleProperty, BundlePropertyConfig

from vol3d.bundle.layout import LAYERS
from vol3d.bundle.workflow import open_workflow
from vol3d.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vol3d.bundle.layout import BundleLayout

_OPTIONAL_JOBS = ("multi_gpu",)


def check_properties(layout: BundleLayout) -> list[str]:
    """Return which required keys are missing and which optional pieces have another key, one line each."""
    findings: list[str] = []
    for job, layers in LAYERS.items():
        if job in _OPTIONAL_JOBS and not (layout.root / "configs" / f"{layers[-1]}.yaml").is_file():
            continue
        try:
            findings += _job_findings(layout, job)
        except BundleError as error:
            findings.append(str(error))
    return list(dict.fromkeys(findings))


def _job_findings(layout: BundleLayout, job: str) -> Iterator[str]:
    workflow = open_workflow(layout, job, {})
    for name, rule in workflow.properties.items():
        own_id = rule[BundlePropertyConfig.ID]
        if rule.get(BundleProperty.REQUIRED, False):
            if own_id not in workflow.parser:
                yield f"configs of {job} must define {own_id} ({name}), got no such key; add it"
            continue
        place = rule.get(BundlePropertyConfig.REF_ID)
        used = workflow.parser.get(place) if place is not None else None
        is_expression = isinstance(used, str) and used.startswith("$")
        if used is not None and not is_expression and used != f"@{own_id}":
            got = used if isinstance(used, str) else "the piece itself"
            yield f"{place} in the configs of {job} must be '@{own_id}', got {got}; define {own_id} and refer to it"
