"""Writing a figure so that the file is either whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vol3d.data.atomic_write import atomic_path
from vol3d.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figure(path: str | Path, figure: Figure, dots_per_inch: int = 150) -> Path:
    """Write a figure as PNG, replacing the file only when the new one is whole, and return its path.

    Args:
        path: File name ending in ``.png``; its folder is made when missing.
        figure: A matplotlib figure that pyplot does not manage.
        dots_per_inch: Pixels per inch of the figure's size.

    Raises:
        OutputError: If the suffix is another, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise OutputError(f"path must end in .png, got {path.name}; pictures are written as PNG")
    try:
        with atomic_path(path, is_durable=False) as aside:
            # The software's version in the file would make equal pictures differ.
            figure.savefig(aside, format="png", dpi=dots_per_inch, metadata={"Software": None})
    except OSError as error:
        raise OutputError(
            f"path must be a file that can be written, got {path} ({error.strerror}); choose another folder"
        ) from error
    return path
