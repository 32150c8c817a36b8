"""Write a file so that readers, and a kill at any moment, see the old content or the whole new one."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ASIDE_SUFFIX = ".aside"
"""Ends the name of a file that is being written; only a kill leaves one behind."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, is_durable: bool = True, suffix: str = "") -> Iterator[Path]:
    """Give a path to write to, and rename it to ``path`` when the block ends without an error.

    Args:
        path: The file to write; its folder is made when missing.
        is_durable: Wait until content and name are on the disk, so that a power cut cannot leave a hollow file.
        suffix: End of the path that is given, for writers that choose the format by it.

    Yields:
        A path in the same folder that no other thread or process uses; it is removed if the block raises.

    Raises:
        OSError: If the file cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}{ASIDE_SUFFIX}{suffix}")
    try:
        yield aside
        if is_durable:
            _sync(aside)
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if is_durable and hasattr(os, "O_DIRECTORY"):  # Windows has no handle on a folder; its rename is journaled.
        _sync(target.parent)


def _sync(path: Path) -> None:
    # Windows flushes only through a handle that may write; a folder opens only for reading.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
