"""The order of cases depends on seed and epoch alone, and is shared out without repetition."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vol3d.data.epoch_sampler import EpochSampler
from vol3d.errors import ConfigError


def order(sampler: EpochSampler, epoch: int, skip_cases: int = 0) -> list[int]:
    sampler.set_epoch(epoch, skip_cases)
    return list(sampler)


def test_every_case_comes_once_in_an_epoch() -> None:
    assert sorted(order(EpochSampler(range(11), seed=3), 1)) == list(range(11))


def test_an_epoch_has_the_same_order_whatever_ran_before() -> None:
    first = EpochSampler(range(20), seed=3)
    for epoch in range(5):
        order(first, epoch)
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert order(first, 5) == order(EpochSampler(range(20), seed=3), 5)


def test_epochs_and_seeds_have_different_orders() -> None:
    sampler = EpochSampler(range(50), seed=0)
    orders = [order(sampler, 1), order(sampler, 2), order(EpochSampler(range(50), seed=1), 1)]
    assert len({tuple(cases) for cases in orders}) == 3


@given(num_cases=st.integers(1, 40), world_size=st.integers(1, 5), epoch=st.integers(0, 9))
def test_processes_share_an_epoch_without_repetition_in_equal_parts(
    num_cases: int, world_size: int, epoch: int
) -> None:
    if num_cases < world_size:
        return
    parts = [order(EpochSampler(range(num_cases), 0, rank, world_size), epoch) for rank in range(world_size)]
    assert {len(part) for part in parts} == {num_cases // world_size}
    together = [case for part in parts for case in part]
    assert len(set(together)) == len(together)


def test_over_the_epochs_no_case_is_left_out_for_good() -> None:
    seen: set[int] = set()
    for epoch in range(30):
        for rank in range(2):
            seen |= set(order(EpochSampler(range(5), 0, rank, 2), epoch))
    assert seen == set(range(5))


def test_skipped_cases_are_missing_once() -> None:
    sampler = EpochSampler(range(9), seed=1)
    whole = order(sampler, 4)
    assert order(sampler, 4, skip_cases=4) == whole[4:]
    assert list(sampler) == whole


def test_length_is_that_of_a_whole_share_even_when_cases_are_skipped() -> None:
    sampler = EpochSampler(range(9), rank=1, world_size=2)
    sampler.set_epoch(1, skip_cases=3)
    assert len(sampler) == 4


def test_fewer_cases_than_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="a case per process, got 1 for 2 processes"):
        EpochSampler(range(1), world_size=2)


@pytest.mark.parametrize(
    "other", [EpochSampler(range(8), 2), EpochSampler(range(9), 1), EpochSampler(range(8), 1, 0, 2)]
)
def test_a_run_with_other_seed_cases_or_processes_is_not_continued(other: EpochSampler) -> None:
    with pytest.raises(ConfigError, match="keep its data and seed"):
        EpochSampler(range(8), 1).load_state_dict(other.state_dict())


def test_its_own_state_is_accepted() -> None:
    sampler = EpochSampler(range(8), 1)
    sampler.load_state_dict(sampler.state_dict())
