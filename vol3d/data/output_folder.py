"""The check that an output folder can be used, made before the work whose result it is for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vol3d.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


def require_writable(folder: Path) -> None:
    """Make a folder, or refuse it.

    Raises:
        OutputError: If it cannot be made, is a file, or this user may not write into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"output must be a writable folder, got {folder} ({error.strerror}); choose another"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"output must be a writable folder, got {folder} (no permission); choose another")
