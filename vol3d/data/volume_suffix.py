"""Which files are volumes, told by their suffix; nothing is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


def volume_suffix(path: str | os.PathLike[str]) -> str | None:
    """Return the volume suffix of a path in lower case, or None if it has none.

    Example:
        >>> volume_suffix("scan.NII.GZ"), volume_suffix("scan.png")
        ('.nii.gz', None)
    """
    name = Path(path).name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix) and name != suffix), None)


def volume_stem(path: str | os.PathLike[str]) -> str:
    """Return the file name without its volume suffix, or the whole name if it has none.

    Example:
        >>> volume_stem("/data/patient.1.nii.gz")
        'patient.1'
    """
    name = Path(path).name
    return name[: len(name) - len(volume_suffix(name) or "")]
