"""Where the case cache lives unless a config says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "VOL3D_CACHE"


def default_cache_dir() -> Path:
    """Return ``$VOL3D_CACHE``, or ``vol3d/volumes`` in the user's cache folder (``$XDG_CACHE_HOME``, ``~/.cache``)."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "vol3d" / "volumes"
