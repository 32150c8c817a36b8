"""The whole way from a file to a label file, by MONAI's transforms and by vol3d, with one network and one setting."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from inference_cases import Case, Settings, build_network
from monai.data import MetaTensor, decollate_batch
from monai.inferers import SlidingWindowInferer
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImaged,
    ScaleIntensityRanged,
    Spacingd,
)

from vol3d.data.volume_reader import read_volume
from vol3d.data.volume_writer import write_labelmap
from vol3d.geometry import VolumeGeometry
from vol3d.inference.body_mask import SkipOutsideBody
from vol3d.inference.grid_map import GridMap
from vol3d.inference.output_maps import allocate_maps
from vol3d.inference.restore import SlabRestorer
from vol3d.inference.runtimes.choose_runtime import RuntimeOptions, choose_runtime
from vol3d.inference.sliding_window import StreamingSlidingWindowInferer

if TYPE_CHECKING:
    from collections.abc import Callable

    from vol3d.inference.runtimes.runtime import Runtime


def preparation(case: Case, settings: Settings) -> Compose:
    """Return the transforms that both pipelines run after reading."""
    low, high = settings.window_hu
    steps = [Orientationd("image", axcodes="RAS", labels=None)]
    if case.spacing_mm:
        steps.append(Spacingd("image", pixdim=case.spacing_mm, mode="bilinear"))
    return Compose([*steps, ScaleIntensityRanged("image", low, high, 0, 1, clip=True)])


def prepare(case: Case, settings: Settings) -> tuple[MetaTensor, VolumeGeometry]:
    """Return the network's input, ``C H W D``, and the grid of the scan."""
    scan = read_volume(case.path)
    array = torch.from_numpy(np.ascontiguousarray(scan.array, dtype=np.float32))[None]
    image = MetaTensor(array, affine=torch.from_numpy(scan.geometry.affine.copy()))
    return preparation(case, settings)({"image": image})["image"], scan.geometry


class Vol3dPipeline:
    """Read, prepare, stream through the chosen runtime, restore slab by slab, write."""

    def __init__(
        self, settings: Settings, cache_dir: Path, precision: str = "auto", *, is_skipping: bool = True
    ) -> None:
        self._settings = settings
        options = RuntimeOptions(precision=precision, cache_dir=cache_dir)
        self.runtime: Runtime = choose_runtime(build_network(settings), "cpu", (1, *settings.roi_size), options)
        self._is_skipping = is_skipping
        self.windows = (0, 0)

    def __call__(self, case: Case, output: Path) -> None:
        """Segment one scan and write its labels to ``output``."""
        image, scan = prepare(case, self._settings)
        network_grid = VolumeGeometry(tuple(image.shape[1:]), np.asarray(image.affine))
        maps = allocate_maps(scan.shape, self._settings.num_classes)
        restorer = SlabRestorer(GridMap.between(scan, network_grid), maps)
        for slab in self.inferer().stream(image, self.runtime):
            restorer.add(slab)
        write_labelmap(output, maps.labels, scan, overwrite=True)

    def inferer(self) -> StreamingSlidingWindowInferer:
        """Return the inferer with the settings' windows."""
        return StreamingSlidingWindowInferer(
            self._settings.roi_size,
            self.runtime.windows_per_call,
            self._settings.overlap,
            skip=SkipOutsideBody(window_hu=self._settings.window_hu) if self._is_skipping else None,
            num_channels=self._settings.num_classes,
            on_progress=self._count,
        )

    def _count(self, done: int, total: int) -> None:
        self.windows = (done, total)


class MonaiPipeline:
    """What a MONAI bundle's inference.yaml runs: dictionary transforms, SlidingWindowInferer, Invertd, SaveImaged."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._network = build_network(settings)
        self._inferer = SlidingWindowInferer(settings.roi_size, 1, settings.overlap, mode="gaussian")

    def __call__(self, case: Case, output: Path) -> None:
        """Segment one scan and write its labels to ``output``."""
        loading = [LoadImaged("image"), EnsureChannelFirstd("image")]
        before = Compose([*loading, *preparation(case, self._settings).transforms])
        data = before({"image": case.path})
        with torch.inference_mode():
            data["pred"] = self._inferer(data["image"][None], self._network)
        data["pred"] = decollate_batch(data["pred"])[0]
        with tempfile.TemporaryDirectory() as folder:
            after = Compose(
                [
                    Invertd("pred", before, orig_keys="image", nearest_interp=False, to_tensor=True),
                    AsDiscreted("pred", argmax=True),
                    SaveImaged(
                        "pred", output_dir=folder, output_dtype=np.uint8, separate_folder=False, print_log=False
                    ),
                ]
            )
            after(data)
            next(Path(folder).glob("*.nii.gz")).replace(output)


def mean_dice(first: Path, second: Path, read: Callable[[Path], np.ndarray] | None = None) -> float:
    """Return the mean Dice score of the foreground classes that either label file holds; 1 if both hold none."""
    a, b = (read(path) if read else read_volume(path).array for path in (first, second))
    present = (set(np.unique(a)) | set(np.unique(b))) - {0}
    scores = [2 * np.sum((a == k) & (b == k)) / (np.sum(a == k) + np.sum(b == k)) for k in present]
    return float(np.mean(scores)) if scores else 1.0
