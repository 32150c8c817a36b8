"""One training loop for every data pipeline of the benchmarks: the hippocampus bundle's network, loss and optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot
from monai.optimizers import WarmupCosineSchedule

from vol3d.engines.autocast_inferer import has_fast_bfloat16
from vol3d.engines.compiled_network import compile_network
from vol3d.networks.attention_unet import AttentionUNet

if TYPE_CHECKING:
    from collections.abc import Iterable

NUM_CLASSES = 3


class EpochTrainer:
    """Trains a fresh network on batches, one epoch per call.

    Args:
        batches: Yields ``image`` and ``label``, ``B C H W D``; its length is not asked for.
        max_epochs: Where the learning rate ends.
        memory_format: Of the network's weights, and so of its features: channels last is what the bundle trains with,
            contiguous is what a stock pipeline has.
        is_compiled: As with the bundle's ``compile: true``: compiled kernels, in bfloat16 where that is fast then.
        seed: Of the network's first weights.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        max_epochs: int,
        memory_format: torch.memory_format = torch.contiguous_format,
        is_compiled: bool = False,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.batches = batches
        self.network = AttentionUNet(1, NUM_CLASSES).to(memory_format=memory_format)
        self.compiled = compile_network(self.network, is_compiled)
        self.is_bfloat16 = is_compiled and has_fast_bfloat16("cpu", compiled=True)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.002, weight_decay=0.01)
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        self.schedule = WarmupCosineSchedule(self.optimizer, warmup_steps=1, t_total=max_epochs + 1)

    def run_epoch(self) -> None:
        """Train once over all batches."""
        self.network.train()
        self.schedule.step()
        for batch in self.batches:
            self.optimizer.zero_grad(set_to_none=True)
            image, label = (torch.as_tensor(batch[key]).as_subclass(torch.Tensor) for key in ("image", "label"))
            with torch.autocast("cpu", torch.bfloat16, enabled=self.is_bfloat16):
                logits = self.compiled(image)
            self.loss(logits.float(), label).backward()
            self.optimizer.step()

    @torch.inference_mode()
    def dice(self, cases: Iterable[Any]) -> float:
        """Return the mean foreground Dice of whole cases."""
        self.network.eval()
        metric = DiceMetric(include_background=False)
        for case in cases:
            image, label = (case[key].as_tensor()[None] for key in ("image", "label"))
            pred = self.network(image).argmax(dim=1, keepdim=True)
            metric(one_hot(pred, NUM_CLASSES), one_hot(label, NUM_CLASSES))
        return float(metric.aggregate())
