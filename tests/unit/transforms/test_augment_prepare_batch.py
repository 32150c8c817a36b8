from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from vol3d.errors import ConfigError
from vol3d.transforms.augment_epoch_handler import AugmentEpochHandler
from vol3d.transforms.augment_prepare_batch import AugmentPrepareBatch
from vol3d.transforms.augment_settings import SpatialSettings
from vol3d.transforms.batch_augment import BatchAugment


def batches() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randn(2, 1, 8, 8, 8, generator=generator),
            "label": torch.randint(0, 2, (2, 1, 8, 8, 8), generator=generator),
            "case": [f"{number}a", f"{number}b"],
        }
        for number in range(2)
    ]


def prepare(epoch: int | None = None) -> AugmentPrepareBatch:
    return AugmentPrepareBatch(BatchAugment((6, 6, 6), SpatialSettings(rotation_probability=1.0), seed=2), epoch)


def seen_by_a_trainer(first_epoch: int, last_epoch: int) -> dict[int, list[torch.Tensor]]:
    """Return the images that a MONAI trainer feeds to its network, epoch by epoch."""
    seen: dict[int, list[torch.Tensor]] = {}
    prepare_batch = prepare()

    class Recorder(torch.nn.Conv3d):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.setdefault(trainer.state.epoch, []).append(image.detach())
            return super().forward(image)

    network = Recorder(1, 1, 1)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=last_epoch,
        train_data_loader=batches(),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=lambda pred, label: (pred - label).square().mean(),
        prepare_batch=prepare_batch,
        train_handlers=[prepare_batch],
    )
    trainer.state.epoch = first_epoch - 1
    trainer.state.iteration = (first_epoch - 1) * 2
    trainer.run()
    return seen


def test_a_monai_trainer_feeds_augmented_batches_that_differ_between_epochs() -> None:
    seen = seen_by_a_trainer(1, 2)
    expected = prepare(epoch=2)(batches()[1])[0]
    assert torch.equal(seen[2][1], expected)
    assert not torch.equal(seen[1][1], seen[2][1])


def test_a_resumed_training_draws_what_it_would_have_drawn() -> None:
    whole, resumed = seen_by_a_trainer(1, 3), seen_by_a_trainer(3, 3)
    assert list(resumed) == [3]
    for new, old in zip(resumed[3], whole[3], strict=True):
        assert torch.equal(new, old)


def test_the_handler_of_a_config_tells_the_epoch() -> None:
    parser = ConfigParser(
        {
            "prepare": {
                "_target_": "vol3d.transforms.augment_prepare_batch.AugmentPrepareBatch",
                "augment": {
                    "_target_": "vol3d.transforms.batch_augment.BatchAugment",
                    "roi_size": [6, 6, 6],
                    "spatial": {
                        "_target_": "vol3d.transforms.augment_settings.SpatialSettings",
                        "rotation_degrees": [-10, 10],
                    },
                },
            },
            "handlers": [
                {
                    "_target_": "vol3d.transforms.augment_epoch_handler.AugmentEpochHandler",
                    "follower": "@prepare",
                }
            ],
        }
    )
    (handler,) = parser.get_parsed_content("handlers")
    assert isinstance(handler, AugmentEpochHandler)
    engine = Engine(lambda *_: None)
    handler.attach(engine)
    engine.run([0], max_epochs=3)
    assert parser.get_parsed_content("prepare").epoch == 3


def test_without_an_epoch_nothing_is_augmented() -> None:
    with pytest.raises(ConfigError, match="epoch must be set before the first batch, got None"):
        prepare()(batches()[0])


def test_a_batch_without_label_gives_none() -> None:
    batch = batches()[0]
    del batch["label"]
    image, label = prepare(epoch=1)(batch, device="cpu", non_blocking=True)
    assert image.shape == (2, 1, 6, 6, 6)
    assert label is None


def test_volumes_of_different_size_are_moved_one_by_one() -> None:
    batch = {"image": [torch.zeros(1, 5, 6, 7), torch.zeros(1, 9, 9, 9)], "case": ["a", "b"]}
    assert prepare(epoch=1)(batch, device=torch.device("meta"))[0].device.type == "meta"
