"""``vol3d check`` on a whole bundle and on broken ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from monai.bundle import ConfigParser
from typer.testing import CliRunner

from vol3d.bundle.config_layers import read_layers
from vol3d.bundle.layout import BundleLayout
from vol3d.cli.check import check

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def bundle(tmp_path: Path) -> BundleLayout:
    """A copy of a real bundle, without weights."""
    source = REPOSITORY / "bundles" / "hippocampus_mr_segmentation"
    layout = BundleLayout(tmp_path / source.name)
    shutil.copytree(source, layout.root, ignore=shutil.ignore_patterns("models", "golden.json"))
    return layout


def run(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(check)
    return CliRunner().invoke(app, list(arguments))


def add_weights(layout: BundleLayout) -> None:
    torch.manual_seed(0)
    config = {**read_layers(layout.config_paths("inference")), "bundle_root": str(layout.root)}
    layout.weights_path.parent.mkdir()
    torch.save(ConfigParser(config=config).get_parsed_content("network_def").state_dict(), layout.weights_path)


def test_a_whole_bundle_is_ok_and_its_golden_answer_is_recorded_on_request(bundle: BundleLayout) -> None:
    add_weights(bundle)
    result = run(str(bundle.root), "--update-golden")
    assert result.exit_code == 0
    names = ("metadata", "properties", "network", "weights", "golden")
    assert result.output.splitlines()[-5:] == [f"{name}: ok" for name in names]


def test_findings_are_one_line_each_and_exit_with_3(bundle: BundleLayout) -> None:
    metadata = json.loads(bundle.metadata_path.read_text())
    metadata["modality"] = "CT"
    bundle.metadata_path.write_text(json.dumps(metadata))
    result = run(str(bundle.root))
    assert result.exit_code == 3
    lines = result.output.splitlines()
    assert lines[:2] == [
        "metadata: 2 findings",
        "  modality must be in the bundle's name, got CT for hippocampus_mr_segmentation; correct either",
    ]
    assert lines[-4] == "weights: 1 finding"
    assert "models/model.pt, got no such file" in lines[-3]
    assert lines[-2] == "golden: 1 finding"
