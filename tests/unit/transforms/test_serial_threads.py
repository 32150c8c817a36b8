from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import torch

from vol3d.transforms.serial_threads import serial_threads

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_of_the_pool_work_on_one_core_each_and_all_others_as_before() -> None:
    pool = serial_threads()
    assert pool is not None
    together = threading.Barrier(2)

    def limit(_: int) -> int:
        together.wait(timeout=30)
        return torch.get_num_threads()

    assert list(pool.map(limit, range(2))) == [1, 1]
    assert torch.get_num_threads() == 2
    seen: list[int] = []
    new = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert seen == [2]


def test_the_pool_is_started_once() -> None:
    assert serial_threads() is serial_threads()


def test_one_thread_needs_no_pool() -> None:
    torch.set_num_threads(1)
    assert serial_threads() is None
