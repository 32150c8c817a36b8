"""Threads that each run torch's operations on one core: samples side by side instead of every operation split up.

Augmentation is hundreds of short operations. Split over OpenMP threads, each of them ends in a barrier, which on a busy
machine waits for a time slice of the scheduler: on two cores under load, batches became a hundred times slower than on
one thread. Working on whole samples needs no barriers, and results do not depend on the number of threads.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch


def serial_threads() -> ThreadPoolExecutor | None:
    """Return this process's pool of as many threads as torch may use, or None where that is one.

    The workers of a data loader are limited to one thread and so get None.
    """
    num_threads = torch.get_num_threads()
    # A forked child inherits the pool but not its threads: it needs one of its own.
    return None if num_threads == 1 else _start_pool(os.getpid(), num_threads)


@functools.cache
def _start_pool(process: int, num_threads: int) -> ThreadPoolExecutor:  # noqa: ARG001 - process is part of the cache's key
    """Start threads whose torch operations run on one core; the limit of all other threads stays what it is."""
    all_started = Barrier(num_threads + 1)

    def limit_this_thread() -> None:
        # The limit belongs to the calling thread, but a thread that has never asked for it adopts the process's latest
        # value at its first operation: ask while that is 1, and let the caller restore it.
        torch.set_num_threads(1)
        torch.get_num_threads()
        all_started.wait()

    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="augment", initializer=limit_this_thread)
    for _ in range(num_threads):
        # A pool starts a thread per task while all others are busy; these wait in the barrier.
        pool.submit(int)
    all_started.wait()
    torch.set_num_threads(num_threads)
    return pool
