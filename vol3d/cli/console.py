"""What the command line prints: results on stdout, progress and errors on stderr, progress only on a terminal."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vol3d.cli.interruption import raise_if_interrupted
from vol3d.cli.library_noise import silence_known_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import TaskID

# Paths and case names are printed as they are: "[1]" is no markup and ":bell:" no emoji.
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def configure_logging(debug: bool) -> None:
    """Send vol3d's log lines to stderr; other libraries speak only when something is wrong."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.ERROR, force=True)
    logging.getLogger("vol3d").setLevel(logging.DEBUG if debug else logging.WARNING)
    silence_known_lines()


@dataclass(frozen=True)
class ProgressBar:
    """A bar with elapsed and remaining time on stderr; nothing is shown where that is no terminal."""

    progress: Progress
    task: TaskID

    def advance(self, amount: float, description: str) -> None:
        """Mark the end of a step; a stop that was requested takes effect here at the latest."""
        raise_if_interrupted()
        self.progress.update(self.task, advance=amount, description=description)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while lines are printed, which would else be written into it."""
        if self.progress.disable:
            yield
            return
        self.progress.stop()
        yield
        self.progress.start()


@contextmanager
def progress_bar(description: str, total: float) -> Iterator[ProgressBar]:
    """Show a bar for the time of the block."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("remaining"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        yield ProgressBar(progress, progress.add_task(description, total=total))
