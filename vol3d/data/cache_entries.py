"""The files of the case cache, without opening them (and without importing torch)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from pathlib import Path

ENTRY_SUFFIX = ".case"


def entry_path(folder: Path, key: str) -> Path:
    """Return the file of a key."""
    return folder / key[:2] / f"{key}{ENTRY_SUFFIX}"


def list_entries(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Return all files of cases with their status, least recently used first; none if there is no folder."""
    found = []
    for path in folder.glob(f"[0-9a-f][0-9a-f]/*{ENTRY_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # evicted by another process
            found.append((path, path.stat()))
    return sorted(found, key=lambda entry: entry[1].st_atime_ns)
