"""One memory-hungry job in a process of its own; prints its peak memory above what the process had after its imports.

python scripts/peak_memory_job.py {vol3d|monai} --shape 512 512 300 --classes 24 [--memory 2GiB]

Both jobs start from a volume in memory, run the same windows through a network that costs next to nothing, and end with
the label map of the full grid. Prints {"peak_bytes": ..., "wall_s": ..., "cpu_s": ...}.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np
import psutil
import torch
from inference_cases import ThresholdStub
from monai.inferers import SlidingWindowInferer

from vol3d.data.byte_size import parse_bytes
from vol3d.inference.grid_map import GridMap
from vol3d.inference.output_maps import allocate_maps
from vol3d.inference.restore import SlabRestorer
from vol3d.inference.sliding_window import StreamingSlidingWindowInferer


def run_monai(volume: torch.Tensor, options: argparse.Namespace) -> np.ndarray:
    """Return labels by MONAI's inferer and argmax."""
    inferer = SlidingWindowInferer(options.window, 1, options.overlap, mode="gaussian")
    with torch.inference_mode():
        return inferer(volume[None], ThresholdStub(options.classes))[0].argmax(dim=0).to(torch.uint8).numpy()


def run_vol3d(volume: torch.Tensor, options: argparse.Namespace) -> np.ndarray:
    """Return labels by the streaming inferer."""
    shape = tuple(volume.shape[1:])
    maps = allocate_maps(shape, options.classes)
    restorer = SlabRestorer(GridMap(shape, shape, np.eye(4)), maps)
    inferer = StreamingSlidingWindowInferer(
        options.window,
        overlap=options.overlap,
        memory_bytes=parse_bytes(options.memory, "--memory") if options.memory else None,
        num_channels=options.classes,
    )
    for slab in inferer.stream(volume, ThresholdStub(options.classes)):
        restorer.add(slab)
    return np.asarray(maps.labels)


def main() -> None:
    """Run the job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=["vol3d", "monai"])
    parser.add_argument("--shape", type=int, nargs=3, required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--memory", help="limit of the accumulators, for example 2GiB")
    options = parser.parse_args()
    start_bytes = psutil.Process().memory_info().rss
    wall, cpu = time.perf_counter(), time.process_time()
    volume = torch.rand((1, *options.shape), generator=torch.Generator().manual_seed(0))
    labels = (run_vol3d if options.engine == "vol3d" else run_monai)(volume, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {
        "peak_bytes": peak - start_bytes,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "labels_sum": int(labels.sum(dtype=np.int64)),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
