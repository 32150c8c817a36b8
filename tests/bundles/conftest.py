"""Every bundle of the repository, a copy of it with untrained weights, phantom data, and MONAI's program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from vol3d.bundle.config_layers import read_layers
from vol3d.bundle.layout import BundleLayout
from vol3d.data.phantoms import write_phantom_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parents[1] for path in (REPOSITORY / "bundles").glob("*/configs/metadata.json"))
Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once per bundle; modules that set ``TASK`` see the bundles of that task only."""
    if "layout" in metafunc.fixturenames:
        task = getattr(metafunc.module, "TASK", "")
        chosen = [root for root in BUNDLES if root.name.endswith(task)]
        metafunc.parametrize(
            "layout", [BundleLayout(root) for root in chosen], ids=[root.name for root in chosen], scope="session"
        )


def program_environment() -> dict[str, str]:
    # One thread: programs of a test run share the machine. The folder of this Python leads, for torchrun and bash.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}


@pytest.fixture(scope="session")
def run_command() -> Run:
    """Run a line of shell in a folder; fails the test, with what it printed, if it fails."""

    def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["bash", "-c", line],  # noqa: S607 - the lines under test are shell lines
            cwd=folder,
            env=program_environment(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    return run


@pytest.fixture(scope="session")
def copied(layout: BundleLayout, tmp_path_factory: pytest.TempPathFactory) -> BundleLayout:
    """A copy of the bundle whose weights are those of an untrained network."""
    copy = BundleLayout(tmp_path_factory.mktemp("bundles") / layout.name)
    shutil.copytree(layout.root, copy.root)
    copy.weights_path.parent.mkdir(exist_ok=True)
    torch.manual_seed(1)
    config = {**read_layers(copy.config_paths("inference")), "bundle_root": str(copy.root)}
    torch.save(ConfigParser(config=config).get_parsed_content("network_def").state_dict(), copy.weights_path)
    return copy


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and two validation cases for segmentation."""
    return write_phantom_dataset(tmp_path_factory.mktemp("phantoms"), 4, 2)


@pytest.fixture(scope="session")
def header_command() -> Callable[[Path, Path, Path], str]:
    """The command in a config's head, with its paths replaced by those of the test."""

    def read(config: Path, dataset_dir: Path, output_dir: Path) -> str:
        lines = config.read_text(encoding="utf-8").splitlines()
        commands = [line.lstrip("# ") for line in lines if re.match(r"#\s+(python -m|torchrun )", line)]
        assert len(commands) == 1, f"{config.name} must have one command in its head, got {commands}"
        command = re.sub(r"--dataset_dir \S+", f"--dataset_dir {dataset_dir}", commands[0])
        return re.sub(r"--output_dir \S+", f"--output_dir {output_dir}", command)

    return read
