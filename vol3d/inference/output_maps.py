"""The arrays on the scan's own grid that a prediction fills slab by slab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vol3d.errors import UsageError

if TYPE_CHECKING:
    from vol3d.inference.window_plan import Triple

DECISIONS = ("argmax", "threshold")


@dataclass
class OutputMaps:
    """What is wanted of a prediction; leave out what is not. Each is an array in memory, a memmap or a Zarr array.

    Make the fields with :func:`allocate_maps`, or bring arrays of your own that support NumPy slice assignment and
    hold the background already: voxels outside the network's field of view are never written.

    Args:
        labels: ``H W D`` of integers; with the decision ``"threshold"`` ``C H W D`` of masks.
        top_probability: ``H W D`` of floats, the probability of the most probable class.
        entropy: ``H W D`` of floats, predictive entropy in nats (0 is certain, ``log C`` knows nothing).
        probabilities: ``C H W D`` of floats.
        decision: ``"argmax"`` over the channels, the first of which is the background, with softmax as probability;
            ``"threshold"``: each channel a mask of its own, probability 0.5 and above, with sigmoid.
    """

    labels: Any = None
    top_probability: Any = None
    entropy: Any = None
    probabilities: Any = None
    decision: str = "argmax"

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise UsageError(f"decision must be one of {', '.join(DECISIONS)}, got {self.decision!r}; choose one")

    @property
    def needs_only_labels(self) -> bool:
        """Whether the shortcut for label maps is enough."""
        return self.decision == "argmax" and all(
            field is None for field in (self.top_probability, self.entropy, self.probabilities)
        )

    def write_labels(self, place: tuple[slice, ...], labels: torch.Tensor, keep: torch.Tensor | None = None) -> None:
        """Write decided labels, ``h w d``, to one part of the scan; where ``keep`` (same shape) is False, nothing."""
        _put(self.labels, place, labels, keep)

    def write(
        self, place: tuple[slice, ...], values: torch.Tensor, keep: torch.Tensor | None, *, is_probability: bool
    ) -> None:
        """Write every wanted map of one part of the scan.

        Args:
            place: Slices along ``H W D`` of the scan.
            values: ``C h w d`` of that part, logits or probabilities.
            keep: ``h w d``; nothing is written where it is False. None writes all.
            is_probability: Which of the two ``values`` are.
        """
        is_mask = self.decision == "threshold"
        if self.labels is not None and is_mask:
            _put(self.labels, (slice(None), *place), values >= (0.5 if is_probability else 0.0), keep)
        elif self.labels is not None:
            self.write_labels(place, values.argmax(dim=0), keep)
        if not is_probability:
            values = values.sigmoid() if is_mask else values.softmax(dim=0)
        if self.top_probability is not None:
            # A mask's two classes are "in" and "out"; of several masks the least certain one counts.
            top = torch.maximum(values, 1 - values).amin(dim=0) if is_mask else values.amax(dim=0)
            _put(self.top_probability, place, top, keep)
        if self.entropy is not None:
            terms = torch.special.entr(values)
            if is_mask:
                terms = terms + torch.special.entr(1 - values)
            _put(self.entropy, place, terms.sum(dim=0), keep)
        if self.probabilities is not None:
            _put(self.probabilities, (slice(None), *place), values, keep)


def allocate_maps(
    scan_shape: Triple, num_channels: int, *, decision: str = "argmax", wanted: tuple[str, ...] = ("labels",)
) -> OutputMaps:
    """Return maps in memory that say "background, certain" everywhere.

    Args:
        scan_shape: Voxels along ``H W D``.
        num_channels: Channels of the network's output.
        decision: As in :class:`OutputMaps`.
        wanted: Names of its fields. ``probabilities`` takes classes times volume; bring a memmap or Zarr array for it.

    Raises:
        UsageError: If a name is unknown, or the decision.
    """
    known = ("labels", "top_probability", "entropy", "probabilities")
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"wanted must name {', '.join(known)}, got {unknown}; leave out what is not one of them")
    is_mask = decision == "threshold"
    label_type = np.uint8 if is_mask or num_channels <= 256 else np.uint16
    maps = OutputMaps(decision=decision)
    if "labels" in wanted:
        maps.labels = np.zeros((num_channels, *scan_shape) if is_mask else scan_shape, dtype=label_type)
    if "top_probability" in wanted:
        maps.top_probability = np.ones(scan_shape, dtype=np.float32)
    if "entropy" in wanted:
        maps.entropy = np.zeros(scan_shape, dtype=np.float32)
    if "probabilities" in wanted:
        maps.probabilities = np.zeros((num_channels, *scan_shape), dtype=np.float32)
        if not is_mask:
            maps.probabilities[0] = 1
    return maps


def _put(array: Any, place: tuple[slice, ...], values: torch.Tensor, keep: torch.Tensor | None) -> None:
    new = values.cpu().numpy()
    array[place] = new if keep is None else np.where(keep.cpu().numpy(), new, array[place])
