"""Time alternatives against each other in one run: both orders, medians, CPU seconds and peak memory beside wall time.

Absolute times are noise on a shared machine. What counts is the ratio of two medians from interleaved repetitions.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHOOSING_RUNS = 3
_SAMPLE_S = 0.02


@dataclass(frozen=True)
class Timing:
    """Medians over all repetitions of one alternative; the memory is the highest sample of them all.

    Args:
        wall_s: Wall time.
        cpu_s: CPU time of this process and its children.
        peak_rss_bytes: Resident memory of this process and its children, sampled fifty times a second.
        walls_s: Every wall time, in order.
    """

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    walls_s: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def time_alternatives(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    warm_up: int = 1,
    before: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """Run every alternative ``warm_up + repeats`` times, forwards and backwards in turn, and time the repetitions.

    Args:
        calls: The alternatives by name.
        repeats: Timed repetitions.
        warm_up: Repetitions before them.
        before: Called before every run, not timed.
    """
    runs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in calls}
    for repetition in range(warm_up + repeats):
        names = list(calls) if repetition % 2 == 0 else list(reversed(calls))
        for name in names:
            if before is not None:
                before()
            sample = _time_once(calls[name])
            if repetition >= warm_up:
                runs[name].append(sample)
    return {name: _summary(samples) for name, samples in runs.items()}


def time_fastest(
    calls: Mapping[str, Callable[[], object]], repeats: int, choosing_runs: int = CHOOSING_RUNS
) -> dict[str, Timing]:
    """Time the fastest alternative of each kind, which is the first word of a name.

    Every alternative runs ``choosing_runs`` times to choose them, and only the last one counts: a cache is filled by
    the first epoch and moves up to a faster tier in the second, in each worker for itself.
    """
    first = time_alternatives(calls, 1, warm_up=choosing_runs - 1)
    chosen = [fastest(first, kind)[0] for kind in dict.fromkeys(name.split()[0] for name in calls)]
    return time_alternatives({name: calls[name] for name in chosen}, repeats, warm_up=0)


def fastest(timings: Mapping[str, Timing], prefix: str) -> tuple[str, Timing]:
    """Return the alternative with the shortest median among those whose name starts with ``prefix``."""
    return min(((n, t) for n, t in timings.items() if n.startswith(prefix)), key=lambda pair: pair[1].wall_s)


def _summary(samples: list[tuple[float, float, int]]) -> Timing:
    walls, cpus, peaks = zip(*samples, strict=True)
    return Timing(statistics.median(walls), statistics.median(cpus), max(peaks), tuple(walls))


def _time_once(call: Callable[[], object]) -> tuple[float, float, int]:
    stop, peak = threading.Event(), [0]
    sampler = threading.Thread(target=_sample_memory, args=(stop, peak), daemon=True)
    sampler.start()
    cpu, wall = _cpu_seconds(), time.perf_counter()
    call()
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    stop.set()
    sampler.join()
    return wall, cpu, peak[0]


def _cpu_seconds() -> float:
    """Return CPU seconds of this process, of children that ended and of children that run (persistent workers)."""
    own = psutil.Process()
    times = own.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in own.children(recursive=True):
        try:
            running = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += running.user + running.system
    return total


def _sample_memory(stop: threading.Event, peak: list[int]) -> None:
    own = psutil.Process()
    while True:
        total = own.memory_info().rss
        for child in own.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak[0] = max(peak[0], total)
        if stop.wait(_SAMPLE_S):
            return
