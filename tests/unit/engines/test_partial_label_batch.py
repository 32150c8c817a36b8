from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer

from vol3d.engines.partial_label_batch import PartialLabelPrepareBatch
from vol3d.errors import ConfigError
from vol3d.losses.partial_labels import PartialDiceCELoss
from vol3d.transforms.batch_augment import BatchAugment


def batch() -> dict[str, Any]:
    return {
        "image": [torch.rand(1, 8, 8, 8), torch.rand(1, 9, 8, 7)],
        "label": [torch.ones(1, 8, 8, 8), torch.zeros(1, 9, 8, 7)],
        "case": ["a", "b"],
        "labeled": [[1, 3], []],
    }


def prepare() -> PartialLabelPrepareBatch:
    return PartialLabelPrepareBatch(BatchAugment((6, 6, 6)), num_classes=3)


def test_the_loss_learns_what_each_reference_holds() -> None:
    prepare_batch = prepare()
    prepare_batch.epoch = 1
    image, target = prepare_batch(batch(), torch.device("cpu"))
    assert image.shape == target.labels.shape == (2, 1, 6, 6, 6)
    assert target.is_labeled.tolist() == [[False, True, False], [False, False, False]]


def test_a_trainer_of_monai_takes_the_batch() -> None:
    prepare_batch = prepare()
    network = torch.nn.Conv3d(1, 3, 1)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch()],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=PartialDiceCELoss(),
        prepare_batch=prepare_batch,
        decollate=False,
        train_handlers=[prepare_batch],
    )
    before = network.weight.detach().clone()
    trainer.run()
    assert not network.weight.equal(before)


def test_a_batch_that_does_not_say_what_was_contoured_is_refused() -> None:
    silent = batch()
    del silent["labeled"]
    prepare_batch = prepare()
    prepare_batch.epoch = 1
    with pytest.raises(ConfigError, match=r"hold labels and 'labeled', got \['case', 'image', 'label'\]"):
        prepare_batch(silent)
