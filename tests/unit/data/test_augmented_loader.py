"""Batches from workers are those of the augmentation itself, whatever the number of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from ignite.engine import Engine
from torch.utils.data import SequentialSampler

from vol3d.data.augmented_loader import AugmentedLoader
from vol3d.data.epoch_sampler import EpochSampler
from vol3d.data.ragged_batch import collate_ragged
from vol3d.errors import ConfigError
from vol3d.transforms.augment_epoch_handler import AugmentEpochHandler
from vol3d.transforms.batch_augment import BatchAugment

if TYPE_CHECKING:
    from collections.abc import Iterator

AUGMENT = BatchAugment((6, 5, 4), seed=3)


class Cases:
    """Cases of different sizes; case 3 may be broken."""

    def __init__(self, num: int = 7, *, with_label: bool = True, is_broken: bool = False) -> None:
        self.num = num
        self.with_label = with_label
        self.is_broken = is_broken

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.is_broken and index == 3:
            raise RuntimeError("case_3 is broken")
        shape = (1, 7 + index, 6, 5)
        image = torch.rand(shape, generator=torch.Generator().manual_seed(index))
        label = {"label": (image > 0.5).to(torch.uint8)} if self.with_label else {}
        return {"image": image, "case": f"case_{index}", **label}


def loader(data: Cases, num_workers: int = 2, **options: Any) -> AugmentedLoader:
    return AugmentedLoader(data, AUGMENT, SequentialSampler(data), 2, num_workers, **options)


def expected(data: Cases, epoch: int) -> Iterator[dict[str, Any]]:
    for begin in range(0, len(data), 2):
        cases = range(begin, min(begin + 2, len(data)))
        yield AUGMENT(collate_ragged([data[case] for case in cases]), epoch)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    tensors = [key for key in second if isinstance(second[key], torch.Tensor)]
    return (
        first.keys() == second.keys()
        and first["case"] == second["case"]
        and all(torch.equal(first[key], second[key]) and first[key].dtype == second[key].dtype for key in tensors)
    )


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("with_label", [True, False])
def test_batches_of_every_epoch_are_those_of_the_augmentation(num_workers: int, with_label: bool) -> None:
    data = Cases(with_label=with_label)
    batches = loader(data, num_workers)
    assert len(batches) == 4
    for epoch in (1, 2):
        batches.epoch = epoch
        seen = 0
        for ours, plain in zip(batches, expected(data, epoch), strict=True):
            assert same(ours, plain)
            seen += len(ours["case"])
        assert seen == 7


def test_a_batch_stays_until_the_next_one_is_asked_for() -> None:
    data = Cases(20)
    batches = loader(data, epoch=1)
    for ours, plain in zip(batches, expected(data, 1), strict=True):
        torch.manual_seed(0)
        torch.rand(64, 64) @ torch.rand(64, 64)  # the workers go on meanwhile
        assert same(ours, plain)


def test_an_epoch_that_was_left_early_does_not_disturb_the_next_one() -> None:
    data = Cases(20)
    batches = loader(data, epoch=1)
    for _ in range(3):
        next(iter(batches))
    batches.epoch = 2
    assert all(same(ours, plain) for ours, plain in zip(batches, expected(data, 2), strict=True))


def test_a_smaller_last_batch_can_be_left_out() -> None:
    batches = loader(Cases(), epoch=1, drop_last=True)
    assert len(batches) == 3
    assert [len(batch["case"]) for batch in batches] == [2, 2, 2]


def test_the_sampler_decides_the_order_of_each_epoch() -> None:
    data = Cases()
    sampler = EpochSampler(data, seed=5)
    batches = AugmentedLoader(data, AUGMENT, sampler, 2, 1, epoch=1)
    sampler.set_epoch(4)
    order = [f"case_{index}" for index in sampler]
    assert [case for batch in batches for case in batch["case"]] == order


def test_a_case_that_fails_in_a_worker_is_named() -> None:
    batches = loader(Cases(is_broken=True), epoch=1)
    with pytest.raises(RuntimeError, match="case_3 is broken"):
        list(batches)


def test_an_engine_sets_the_epoch() -> None:
    data = Cases()
    batches = loader(data, 1)
    seen: list[dict[str, Any]] = []
    engine = Engine(lambda _, batch: seen.append({key: torch.clone(batch[key]) for key in ("image", "label")}))
    AugmentEpochHandler(batches).attach(engine)
    engine.run(batches, max_epochs=2)
    for ours, plain in zip(seen, [*expected(data, 1), *expected(data, 2)], strict=True):
        assert torch.equal(ours["image"], plain["image"])


def test_an_epoch_that_nobody_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="epoch must be set"):
        next(iter(loader(Cases(), 1)))


@pytest.mark.parametrize(("name", "numbers"), [("batch_size", (0, 1)), ("num_workers", (2, 0))])
def test_numbers_must_be_positive(name: str, numbers: tuple[int, int]) -> None:
    data = Cases()
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        AugmentedLoader(data, AUGMENT, SequentialSampler(data), *numbers)
