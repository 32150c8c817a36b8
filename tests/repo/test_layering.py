"""Imports inside vol3d point in one direction only; docs/architecture.md draws it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "vol3d"

# Left may import right; packages of one layer never import each other.
LAYERS: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"report"},
    {"sharing"},
    {"bundle"},
    {"inference"},
    {"engines", "handlers"},
    {"data"},
    {"networks", "losses", "metrics", "transforms"},
    {"geometry", "intensity"},
    {"errors"},
]
# The public face names what lives below; it loads each name on first use.
FACE = "__init__"


def layer_of(name: str) -> int:
    for number, layer in enumerate(LAYERS):
        if name in layer:
            return number
    raise AssertionError(f"vol3d/{name} has no place in LAYERS; add it to docs/architecture.md and here")


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "vol3d":
                names |= {alias.name for alias in node.names}
            elif node.module:
                names.add(node.module.removeprefix("vol3d.") if node.module.startswith("vol3d.") else "")
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("vol3d.") for alias in node.names if alias.name.startswith("vol3d.")}
    return {name.split(".")[0] for name in names if name} - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_layers(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == FACE:
        pytest.skip("the package's face names every layer lazily")
    for other in imported_packages(path) - {own}:
        assert layer_of(other) > layer_of(own), f"{path.relative_to(PACKAGE)} must not import vol3d.{other}"


def test_an_arrow_against_the_direction_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "geometry.py"
    wrong.write_text("from vol3d.inference.predictor import VolumePredictor\n")
    (other,) = imported_packages(wrong)
    assert layer_of(other) < layer_of("geometry")
