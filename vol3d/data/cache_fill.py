"""Fill the case cache before training: in parallel, within a bound of memory, with a bar when it takes long."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vol3d.data.volume_cache import VolumeCache

logger = logging.getLogger(__name__)

WORKING_COPIES = 4
"""Arrays of one size that a case needs while it is computed: source, result, one between, and the packed form."""

_QUIET_S = 2.0


@dataclass(frozen=True)
class FillReport:
    """What filling found.

    Args:
        num_found: Cases that were cached already.
        num_computed: Cases that were computed.
        num_bytes: Bytes of all of them in the cache.
    """

    num_found: int
    num_computed: int
    num_bytes: int


def fill_cache(
    cache: VolumeCache, items: Sequence[Any], num_workers: int, max_bytes: int, *, progress: bool
) -> FillReport:
    """Cache all items.

    Threads compute: readers, zlib and torch let go of the interpreter lock. Cases in work are limited so that their
    arrays, ``WORKING_COPIES`` of the largest case seen so far each, stay within ``max_bytes``; one is always allowed.

    Args:
        cache: The cache.
        items: Input items.
        num_workers: Most cases in work at a time.
        max_bytes: Bound of the memory for cases in work.
        progress: Show a bar with the time left, on a terminal and after two seconds.

    Raises:
        VolumeReadError: For the first case that fails; cases that are done stay cached.
    """
    record = cache.fill_record(items)
    sizes = record.sizes() if record is not None else None
    if sizes is not None:
        report = FillReport(len(sizes), 0, sum(sizes))
    else:
        report = _look_and_fill(cache, items, num_workers, max_bytes, progress=progress)
        if record is not None:
            record.write([cache.key(item).digest for item in items])
    logger.info("case cache: %d cases, %d found, %d computed", len(items), report.num_found, report.num_computed)
    if cache.disk is not None and report.num_bytes > cache.disk.max_bytes:
        logger.warning(
            "disk_bytes must hold the data set to spare its preprocessing, got %d for %d bytes; raise disk_bytes",
            cache.disk.max_bytes,
            report.num_bytes,
        )
    return report


def _look_and_fill(
    cache: VolumeCache, items: Sequence[Any], num_workers: int, max_bytes: int, *, progress: bool
) -> FillReport:
    # Training runs that start together meet in the middle instead of waiting for each other case by case.
    start = random.randrange(len(items)) if items else 0  # noqa: S311
    waiting = [*items[start:], *items[:start]][::-1]
    num_found = num_bytes = 0
    with _progress_bar(len(items), is_shown=progress) as advance:
        # A full cache is the usual case, and threads cost more than looking.
        while waiting and (size := cache.stored_bytes(waiting[-1])) is not None:
            waiting.pop()
            num_found, num_bytes = num_found + 1, num_bytes + size
            advance()
        for size, unpacked in _fill_parallel(cache, waiting, num_workers, max_bytes):
            num_found, num_bytes = num_found + (unpacked is None), num_bytes + size
            advance()
    return FillReport(num_found, len(items) - num_found, num_bytes)


def _fill_parallel(
    cache: VolumeCache, waiting: list[Any], num_workers: int, max_bytes: int
) -> Iterator[tuple[int, int | None]]:
    """Fill the cache with the items, taken from the end of the list, and yield what each of them took."""
    largest = 0
    running: set[Future[tuple[int, int | None]]] = set()
    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        try:
            while waiting or running:
                # The first case runs alone: nobody knows its size.
                allowed = max_bytes // (WORKING_COPIES * largest) if largest else 1
                while waiting and len(running) < max(min(allowed, num_workers), 1):
                    running.add(pool.submit(cache.fill, waiting.pop()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for size, unpacked in (future.result() for future in done):
                    largest = max(largest, unpacked or 0)
                    yield size, unpacked
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _progress_bar(total: int, *, is_shown: bool) -> Iterator[Any]:
    if not is_shown or not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (TextColumn("caching"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("caching", total=total)
    begin = time.monotonic()

    def advance() -> None:
        if time.monotonic() - begin > _QUIET_S:
            bar.start()
        bar.advance(task)

    try:
        yield advance
    finally:
        bar.stop()
