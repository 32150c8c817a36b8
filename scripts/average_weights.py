"""Average the weights that a training run kept: the mean of many epochs at a high learning rate generalizes better.

vol3d train BUNDLE --data DIR -o RUN --set keep_interval=1
python scripts/average_weights.py --out model.pt RUN/kept/*.pt

After Izmailov et al. 2018, *Averaging Weights Leads to Wider Optima and Better Generalization* (arXiv:1803.05407). For
networks without batch normalization, whose statistics would have to be measured again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vol3d.data.atomic_write import atomic_path
from vol3d.errors import BundleError, UsageError, Vol3dError

if TYPE_CHECKING:
    from collections.abc import Sequence

State = dict[str, torch.Tensor]


def average_states(paths: Sequence[Path]) -> State:
    """Return the mean of state dicts, summed in float64.

    Raises:
        UsageError: If there is none.
        BundleError: If they are not of one network, or the network counts batches.
    """
    if not paths:
        raise UsageError("paths must name at least one file of weights, got none; train with --set keep_interval=1")
    first = _load(paths[0])
    total = {name: value.double() for name, value in first.items()}
    for path in paths[1:]:
        state = _load(path)
        if {name: value.shape for name, value in state.items()} != {n: v.shape for n, v in first.items()}:
            raise BundleError(f"weights must be of one network, got others in {path.name}; leave it out")
        for name, value in state.items():
            total[name] += value.double()
    return {name: (value / len(paths)).to(first[name].dtype) for name, value in total.items()}


def _load(path: Path) -> State:
    state: State = torch.load(path, map_location="cpu", weights_only=True)
    if counts := [name for name, value in state.items() if not value.is_floating_point()]:
        raise BundleError(f"weights must be floating point to be averaged, got {counts[0]} in {path.name}")
    return state


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", help="state dicts of one network")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    try:
        state = average_states(arguments.paths)
    except Vol3dError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    with atomic_path(arguments.out) as aside:
        torch.save(state, aside)
    print(f"mean of {len(arguments.paths)} -> {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
