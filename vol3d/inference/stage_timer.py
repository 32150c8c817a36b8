"""Wall time of the stages of a prediction."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def timed_stage(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Set ``seconds[stage]`` to the wall time of the block, work queued on a CUDA device included."""
    started = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds[stage] = round(time.perf_counter() - started, 4)
