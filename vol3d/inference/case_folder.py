"""The folder of one case's results: whole or absent, and never the folder of something else.

Files are written to a hidden folder beside it, which is renamed when all of them are there. A job that was killed
leaves such a hidden folder behind; the next job that runs alone in the output folder removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vol3d.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

REPORT_NAME = "report.json"
_ASIDE_PREFIX = ".vol3d-partial-"


def read_report(folder: Path) -> dict[str, Any] | None:
    """Return the report of an earlier result, or None where there is none that can be read."""
    try:
        report = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and isinstance(report.get("sha256"), dict) else None


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """Refuse a folder whose content is to be kept.

    Args:
        folder: Folder of a case, present or not.
        overwrite: Whether an earlier result may go. Anything else in the folder, such as labels that someone
            corrected, or the scan itself, never goes.

    Raises:
        OutputError: If something is there that must stay.
    """
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise OutputError(
            f"output must not exist already, got {folder} from another input, bundle or setting; "
            "add --overwrite or choose another folder"
        )
    report = read_report(folder) or {"sha256": {}}
    own = {REPORT_NAME, *report["sha256"]} if report["sha256"] else set()
    others = sorted({entry.name for entry in folder.iterdir()} - own) if folder.is_dir() else [folder.name]
    if others or folder.is_symlink():
        raise OutputError(
            f"output must hold nothing but an earlier result to be overwritten, got {others[:1]} in {folder}; "
            "move it or choose another folder"
        )


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty hidden folder to fill; it becomes ``target``, replacing it, when the block ends without error."""
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE_PREFIX, dir=target.parent))
    try:
        yield aside
        aside.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        aside.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def working_in(output_dir: Path) -> Iterator[None]:
    """Count as a job that writes into ``output_dir``; the only one there removes what killed jobs left behind."""
    if fcntl is None:
        yield
        return
    handle = os.open(output_dir, os.O_RDONLY)
    try:
        # The locks fail where other jobs run, or where the file system has none: then the leftovers stay.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in output_dir.glob(f"{_ASIDE_PREFIX}*"):
                shutil.rmtree(leftover, ignore_errors=True)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)
