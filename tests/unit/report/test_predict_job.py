"""Which job runs a bundle is what its metadata say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from vol3d.bundle.layout import BundleLayout
from vol3d.errors import BundleError
from vol3d.report.predict_job import predict_job

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("task", [None, "guess", 3])
def test_a_task_that_nothing_runs_is_refused(tmp_path: Path, task: object) -> None:
    layout = BundleLayout(tmp_path / "brain_mr_guess")
    layout.metadata_path.parent.mkdir(parents=True)
    layout.metadata_path.write_text(json.dumps({} if task is None else {"task_type": task}))
    with pytest.raises(BundleError, match=f"task_type in metadata.json of brain_mr_guess .* got {task!r}"):
        predict_job(layout, tmp_path / "out")
