from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose, EnsureTyped
from torch.utils.data import DataLoader

from vol3d.errors import ConfigError
from vol3d.transforms.batch_augment import BatchAugment
from vol3d.transforms.batch_augmentd import BatchAugmentd


def samples() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randn(1, 8, 9, 10, generator=generator),
            "label": torch.randint(0, 3, (1, 8, 9, 10), generator=generator),
            "case": f"case-{number}",
            "draw": number,
        }
        for number in range(3)
    ]


def augment() -> BatchAugment:
    return BatchAugment((7, 7, 7), seed=4)


def test_a_sample_in_a_compose_is_what_it_is_in_a_batch() -> None:
    compose = Compose([EnsureTyped(["image"]), BatchAugmentd(augment(), epoch=2)])
    batch = {key: [sample[key] for sample in samples()] for key in ("image", "label", "case", "draw")}
    expected = augment()(batch, 2)
    for number, sample in enumerate(samples()):
        result = compose(sample)
        assert torch.equal(result["image"], expected["image"][number])
        assert torch.equal(result["label"], expected["label"][number])
        assert result["case"] == sample["case"]


# Python 3.12 warns of every fork beside threads; a worker of a loader runs none.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_running_workers_follow_a_change_of_epoch() -> None:
    transform = BatchAugmentd(augment(), epoch=1)
    loader = DataLoader(
        Dataset(samples(), transform), num_workers=1, persistent_workers=True, multiprocessing_context="fork"
    )
    for epoch in (1, 2):
        transform.epoch = epoch
        for number, result in enumerate(loader):
            expected = BatchAugmentd(augment(), epoch=epoch)(samples()[number])
            torch.testing.assert_close(result["image"][0], expected["image"])


def test_without_an_epoch_nothing_is_augmented() -> None:
    with pytest.raises(ConfigError, match="epoch must be set before the first sample, got None"):
        BatchAugmentd(augment())(samples()[0])


def test_a_negative_epoch_is_refused() -> None:
    with pytest.raises(ConfigError, match="epoch must not be negative, got -3"):
        BatchAugmentd(augment()).epoch = -3
