"""Where attacks are collected: functions that write hostile files and return arguments for ``vol3d share``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Attack = Callable[[Path], list[str]]
"""Makes its files in an empty folder and returns the arguments for ``vol3d share``."""

ATTACKS: dict[str, tuple[Attack, str, int]] = {}
"""Name to attack, expected code (or its beginning) and expected exit code."""


def attack(code: str, exit_code: int = 3) -> Callable[[Attack], Attack]:
    def register(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (function, code, exit_code)
        return function

    return register


def add(name: str, code: str, function: Attack) -> None:
    ATTACKS[name] = (function, code, 3)
