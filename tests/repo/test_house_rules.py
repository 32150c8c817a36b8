"""Rules of docs/architecture.md that no linter knows, and the bookkeeping of dependencies."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted((REPOSITORY / "vol3d").rglob("*.py"))
TEXTS = sorted(
    path
    for part in ("vol3d", "bundles", "docs", "scripts", "tests", ".ci")
    for path in (REPOSITORY / part).rglob("*")
    if path.is_file() and path.suffix in {"", ".py", ".yaml", ".json", ".md", ".toml", ".txt"}
) + sorted(path for path in REPOSITORY.glob("*.*") if path.is_file())
MAX_LINES = 400
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}
# Where someone's machine would show: home folders, and folders that only one machine has.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work)/\w")
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
DEPENDENCIES = sorted(
    {
        canonicalize_name(Requirement(text).name)
        for text in [*PYPROJECT["project"]["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    }
    - {"vol3d"}
)


def faults(source: str) -> list[str]:
    """Name what a module of vol3d must not contain."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert; raise an error of vol3d.errors")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"line {node.lineno}: bare except; name the errors")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append(f"line {node.lineno}: print; log, or use vol3d.cli.console")
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node):
            found.append(f"line {node.lineno}: a stub")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_module_keeps_the_house_rules(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert faults(source) == []
    assert len(source.splitlines()) < MAX_LINES
    assert path.stem not in VAGUE_NAMES
    assert path.parent.name not in VAGUE_NAMES
    assert ast.get_docstring(ast.parse(source)), "a module says what it is for"


@pytest.mark.parametrize("source", ["assert x", "try:\n    x\nexcept:\n    y", "def f():\n    print(x)"])
def test_a_fault_is_found(source: str) -> None:
    assert len(faults(source)) == 1


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:80]}"
        for path in TEXTS
        if "__pycache__" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("name", DEPENDENCIES)
def test_dependency_has_a_reason_and_a_pin(name: str) -> None:
    rows = [line for line in (REPOSITORY / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")]
    reasons = {canonicalize_name(cell) for row in rows for part in row.split("|")[1:3] for cell in _names(part)}
    assert name in reasons, "add a row with its reason to CONTRIBUTING.md"
    pins = {
        canonicalize_name(line.split("==")[0])
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    assert name in pins, "add its pin to constraints.txt"


def _names(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(",") if part.strip()]


def test_pins_satisfy_the_ranges() -> None:
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line]
    pins = {
        canonicalize_name(name): version.strip()
        for name, version in (line.split("==", 1) for line in lines if line[0] != "#")
    }
    wrong = [
        f"{requirement} against {pins[canonicalize_name(requirement.name)]}"
        for requirement in map(Requirement, PYPROJECT["project"]["dependencies"])
        if not requirement.specifier.contains(pins[canonicalize_name(requirement.name)], prereleases=True)
    ]
    assert wrong == []
