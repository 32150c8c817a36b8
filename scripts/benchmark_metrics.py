"""Time the scores of one case against MONAI's metric functions in the same run; prints milliseconds and their ratio.

python scripts/benchmark_metrics.py [--repeats N] [--large]
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from vol3d.metrics.segmentation_scores import score_labelmap

if TYPE_CHECKING:
    from collections.abc import Callable

SPACING_MM = (0.8, 0.8, 2.5)


def make_labelmap(shape: tuple[int, int, int], num_organs: int, shift: int) -> np.ndarray:
    """Return a row of ellipsoids along the first axis, moved along the second by ``shift`` voxels."""
    labelmap = np.zeros(shape, dtype=np.uint8)
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    radius = shape[0] / num_organs / 2
    for organ in range(num_organs):
        center = (organ + 0.5) * shape[0] / num_organs
        distance = ((i - center) / radius) ** 2 + ((j - shape[1] / 2 - shift) / (shape[1] / 5)) ** 2
        labelmap[distance + ((k - shape[2] / 2) / (shape[2] / 3)) ** 2 < 1] = organ + 1
    return labelmap


def score_with_monai(pred: np.ndarray, label: np.ndarray, num_organs: int) -> None:
    """Compute HD95 and NSD of each organ by MONAI, which crops to the masks itself."""
    for organ in range(1, num_organs + 1):
        masks = [torch.from_numpy(labelmap == organ)[None, None] for labelmap in (pred, label)]
        compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=SPACING_MM)
        compute_surface_dice(*masks, [1.0], include_background=True, spacing=SPACING_MM, use_subvoxels=True)


def best_ms(call: Callable[[], object], repeats: int) -> float:
    """Return the shortest of several wall times, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="add a whole CT scan with seven organs")
    arguments = parser.parse_args()
    cases = [((40, 56, 40), 2)] + ([((512, 512, 133), 7)] if arguments.large else [])
    # MONAI 1.6.1 warns of its own deprecated argument at every call.
    warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
    for shape, num_organs in cases:
        pred, label = make_labelmap(shape, num_organs, shift=2), make_labelmap(shape, num_organs, shift=0)
        names = {organ: str(organ) for organ in range(1, num_organs + 1)}
        ours = best_ms(lambda p=pred, q=label, n=names: score_labelmap(p, q, n, SPACING_MM), arguments.repeats)
        monai = best_ms(lambda p=pred, q=label, n=num_organs: score_with_monai(p, q, n), arguments.repeats)
        size = "x".join(map(str, shape))
        print(f"{size} {num_organs} organs: vol3d {ours:.1f} ms, MONAI {monai:.1f} ms, ratio {monai / ours:.1f}")


if __name__ == "__main__":
    main()
