"""The names that ``import vol3d`` promises."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import vol3d

PUBLIC = ["Vol3dError", "Volume", "VolumeGeometry", "VolumePredictor", "load_bundle", "read_volume"]


def test_public_names_are_these_and_sorted() -> None:
    """Change this list together with CHANGELOG.md: users hold on to every name in it."""
    assert vol3d.__all__ == PUBLIC == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_can_be_imported_and_is_documented(name: str) -> None:
    assert getattr(vol3d, name).__doc__
    assert name in dir(vol3d)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_bundel'"):
        vol3d.load_bundel  # noqa: B018


def test_star_import_brings_the_public_names_and_no_others() -> None:
    names: dict[str, object] = {}
    exec("from vol3d import *", names)  # noqa: S102 - a star import is legal at module level only
    assert set(names) - {"__builtins__"} == set(PUBLIC)


def test_both_spellings_are_the_same_program() -> None:
    (script,) = entry_points(group="console_scripts", name="vol3d")
    assert script.value == "vol3d.cli.main:main"
    command = [sys.executable, "-m", "vol3d", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == (f"vol3d {vol3d.__version__}\n", "")
