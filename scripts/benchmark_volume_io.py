"""Compare ways to pack a labelmap, and vol3d's reading and writing with nibabel's, in one run.

Example: ``python scripts/benchmark_volume_io.py --shape 512 512 133``
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from isal import igzip
from scipy import ndimage

from vol3d.data.volume_reader import read_volume
from vol3d.data.volume_writer import write_labelmap, write_volume
from vol3d.geometry import VolumeGeometry

if TYPE_CHECKING:
    from collections.abc import Callable


def best_of(runs: int, work: Callable[[], Any]) -> float:
    """Return the shortest CPU time of some runs: others share this machine."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Print one line per method: CPU seconds, size, and the ratio to the first line of its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 64))
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()

    noise = np.random.default_rng(0).normal(size=options.shape).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, 4)
    labels = np.digitize(smooth / smooth.std(), [-1, 0, 0.5, 1, 2]).astype(np.uint8)
    scan = np.clip(smooth / smooth.std() * 300 + noise * 20, -1024, 3071).astype(np.int16)
    packed = labels.tobytes(order="F")

    print("| packing | CPU s | MB | speed |\n|---|---|---|---|")
    first = None
    for name, pack, levels in (("zlib", gzip.compress, (1, 3, 6, 9)), ("isal", igzip.compress, (0, 1, 2, 3))):
        for level in levels:
            seconds = best_of(options.runs, lambda pack=pack, level=level: pack(packed, level))
            first = first or seconds
            print(f"| {name} {level} | {seconds:.3f} | {len(pack(packed, level)) / 1e6:.2f} | {first / seconds:.1f} |")

    geometry = VolumeGeometry(tuple(options.shape), np.eye(4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        work = {
            "nibabel writes labels": lambda: nib.save(nib.Nifti1Image(labels, np.eye(4)), path),
            "vol3d writes labels, verified": lambda: write_labelmap(path, labels, geometry, overwrite=True),
            "nibabel writes scan": lambda: nib.save(nib.Nifti1Image(scan, np.eye(4)), path),
            "vol3d writes scan, verified": lambda: write_volume(path, scan, geometry, overwrite=True),
            "nibabel reads scan": lambda: np.asarray(nib.load(path).dataobj),
            "vol3d reads scan": lambda: read_volume(path),
        }
        print("\n| reading and writing | CPU s |\n|---|---|")
        for name, call in work.items():
            print(f"| {name} | {best_of(options.runs, call):.3f} |")


if __name__ == "__main__":
    main()
