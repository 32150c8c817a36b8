"""Memory stays flat while the volume grows: measured in a process of its own, where nothing else allocates."""

from __future__ import annotations

import json
import subprocess
import sys

# Peak resident memory after a short and after a long volume; both lives are in one process, so imports count once.
PROGRAM = """
import json, resource, sys
import numpy as np, torch
from vol3d.inference.grid_map import GridMap
from vol3d.inference.output_maps import allocate_maps
from vol3d.inference.restore import SlabRestorer
from vol3d.inference.sliding_window import StreamingSlidingWindowInferer

torch.set_num_threads(1)
classes = torch.linspace(-1, 1, 10)[None, :, None, None, None]
peaks = []
for slices in (100, 1000):
    volume = torch.zeros(1, 48, 48, slices)
    maps = allocate_maps((48, 48, slices), 10)
    restorer = SlabRestorer(GridMap((48, 48, slices), (48, 48, slices), np.eye(4)), maps, chunk_bytes=2**20)
    for slab in StreamingSlidingWindowInferer(32).stream(volume, lambda windows: windows * classes):
        restorer.add(slab)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(json.dumps(peaks))
"""


def test_ten_times_the_slices_take_no_more_than_their_own_voxels() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    short, long = json.loads(output)
    volume_and_labels = 48 * 48 * 1000 * (4 + 1)
    logits = 48 * 48 * 1000 * 10 * 4
    # The allocator may keep some pages of the short run; a tenth of the logits of the whole volume is room enough.
    assert long - short < volume_and_labels + logits / 10
