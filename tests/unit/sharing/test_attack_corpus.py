"""Every attack of the corpus is refused in one line, in time, without torch, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attack_corpus import ATTACKS
from sharing_bundles import tree_of

MAX_SECONDS = 2.0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Run the corpus in one process of its own, below a home and a working folder that must not change."""
    canary, attacks = tmp_path_factory.mktemp("canary"), tmp_path_factory.mktemp("attacks")
    (canary / "home").mkdir()
    (canary / "home" / "notes.txt").write_text("precious")
    before = tree_of(canary)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "attack_corpus.py"), str(attacks)],
        cwd=canary,
        env=os.environ | {"HOME": str(canary / "home"), "PYTHONPATH": str(here), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert tree_of(canary) == before
    assert not list(attacks.rglob("canary"))
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_the_corpus_is_large_enough(results: dict[str, dict[str, Any]]) -> None:
    assert len(results) == len(ATTACKS) >= 90


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_in_one_line(name: str, results: dict[str, dict[str, Any]]) -> None:
    _, code, exit_code = ATTACKS[name]
    result = results[name]
    line = result["stderr"].removesuffix("\n")
    assert line.startswith(f"error: [{code}"), line
    assert len(line) <= 200
    assert line.isprintable()
    assert result["exit_code"] == exit_code
    assert not result["imported_torch"]
    assert result["seconds"] <= MAX_SECONDS
