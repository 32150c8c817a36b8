"""A bundle's job as MONAI's own workflow."""

from __future__ import annotations

from typing import Any

import pytest

from vol3d.bundle.workflow import open_workflow
from vol3d.errors import ConfigError, UsageError


@pytest.mark.parametrize(("job", "kind"), [("inference", "infer"), ("evaluate", "infer"), ("train", "train")])
def test_a_job_opens_as_monais_kind_of_workflow(maker: Any, job: str, kind: str) -> None:
    assert open_workflow(maker.layout, job, {}).workflow_type == kind


def test_a_workflow_refuses_unknown_keys_and_paths_that_monai_would_misread(maker: Any) -> None:
    with pytest.raises(ConfigError, match=r"'dataset_dri'; did you mean dataset_dir\?"):
        open_workflow(maker.layout, "inference", {"dataset_dri": "x"})
    with pytest.raises(UsageError, match="must not contain '#'"):
        open_workflow(maker.layout, "inference", {"dataset_dir": "/data/a#b"})


def test_a_workflow_runs_with_its_overrides(maker: Any) -> None:
    workflow = open_workflow(maker.inference(run=["$@seed + 1"]), "inference", {"seed": 41})
    workflow.initialize()
    assert workflow.run() == [42]


def test_opening_a_workflow_prints_nothing(maker: Any, capfd: pytest.CaptureFixture[str]) -> None:
    open_workflow(maker.layout, "inference", {})
    assert capfd.readouterr() == ("", "")
