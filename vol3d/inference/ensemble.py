"""Several answers to one window: flips of the window and networks of an ensemble, averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, combinations, product

import torch

from vol3d.errors import UsageError

Network = Callable[[torch.Tensor], torch.Tensor]
FLIP_AXES = "HWD"


class Ensemble:
    """The mean probability over all networks and all flips, as one network for the sliding window.

    Each window is answered by every network for every flip; logits become probabilities (softmax over several
    channels, sigmoid of a single one), flips are undone, and the probabilities are averaged with equal weights. The
    mean of probabilities is itself a probability; the mean of logits, which some packages take, would let one
    over-confident member outvote the others. The sliding window then blends probabilities: say so with
    ``is_probability=True``.

    Args:
        networks: At least one; each maps ``N C H W D`` to logits ``N K H W D``.
        flip_axes: Letters of ``HWD``. Every combination of them is run: 2 to the power of their number.
        decision: ``"argmax"`` (softmax) or ``"threshold"`` (sigmoid for each channel).

    Raises:
        UsageError: If there is no network, or an unknown axis.

    Example:
        >>> ensemble = Ensemble([lambda w: w, lambda w: -w], flip_axes="D")
        >>> ensemble(torch.randn(1, 2, 4, 4, 4)).sum(dim=1).allclose(torch.ones(1, 4, 4, 4)), ensemble.num_passes
        (True, 4)
    """

    def __init__(self, networks: Sequence[Network], flip_axes: str = "", decision: str = "argmax") -> None:
        if not networks:
            raise UsageError("networks must hold at least one network, got none; give the members of the ensemble")
        if unknown := set(flip_axes) - set(FLIP_AXES):
            raise UsageError(
                f"flip_axes must be letters of {FLIP_AXES}, got {''.join(sorted(unknown))!r}; leave it out"
            )
        self._decision = decision
        axes = [2 + FLIP_AXES.index(letter) for letter in sorted(set(flip_axes), key=FLIP_AXES.index)]
        flips = chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1))
        self._members = list(product(flips, networks))

    @property
    def num_passes(self) -> int:
        """Calls of a network for each window."""
        return len(self._members)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Return mean probabilities ``N K H W D``."""
        first, *others = self._members
        total = self._answer(windows, *first)
        for member in others:
            total += self._answer(windows, *member)
        return total / self.num_passes

    def _answer(self, windows: torch.Tensor, axes: tuple[int, ...], network: Network) -> torch.Tensor:
        logits = network(windows.flip(axes) if axes else windows)
        is_mask = self._decision == "threshold" or logits.shape[1] == 1
        probability = logits.sigmoid() if is_mask else logits.softmax(dim=1)
        return probability.flip(axes) if axes else probability
