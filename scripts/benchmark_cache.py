"""Measure the case cache and the batch augmentation against MONAI, batchgeneratorsv2 and TorchIO.

python scripts/benchmark_cache.py --data DIR --out cache.json [--quick] [--only ROW]

DIR holds the data sets ``hippocampus`` and ``head_neck_ct``. Every row is a ratio of medians from one run; the table
for docs/benchmarks.md goes to stdout. Peers that are not installed are named in the table with what to install; give
them an environment of their own, because batchgeneratorsv2's dependencies would replace torch.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import json
import multiprocessing
import os
import platform
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from augment_pipelines import (
    Vol3dBatches,
    Vol3dWorkers,
    deterministic,
    drain,
    make_loader,
    monai_dataset,
    vol3d_augment,
)
from benchmark_row import HEADER, Row
from monai import transforms as mt
from monai.data import CacheDataset, Dataset, PersistentDataset
from paired_timing import CHOOSING_RUNS, Timing, fastest, time_alternatives, time_fastest
from training_epoch import EpochTrainer

from vol3d.data.datalist import read_split
from vol3d.data.ragged_batch import collate_ragged
from vol3d.data.volume_cache_dataset import VolumeCacheDataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = (0, 1, 2)
WARM_EPOCHS = 5  # until two workers that share the cases at random have nearly all of them in memory
INSTALL = {
    "batchgeneratorsv2": "pip install --no-deps batchgeneratorsv2 batchgenerators acvl-utils",
    "torchio": "pip install torchio",
}
MODULES = {"batchgeneratorsv2": "batchgenerators_pipeline", "torchio": "torchio_pipeline"}


@dataclass(frozen=True)
class Task:
    """One data set and how it is prepared."""

    name: str
    items: list[dict[str, str]]
    window_hu: tuple[float, float] | None
    roi: tuple[int, int, int]
    batch_size: int
    cache_dir: Path

    def transforms(self, *, is_padded: bool = False) -> list[Any]:
        """Return the deterministic transforms."""
        return deterministic(self.window_hu, self.roi if is_padded else None)

    def vol3d_dataset(self, **options: Any) -> VolumeCacheDataset:
        """Return the cached data set."""
        return VolumeCacheDataset(
            self.items, mt.Compose(self.transforms()), cache_dir=self.cache_dir, progress=False, **options
        )

    def vol3d_batches(self, num_workers: int, *, as_torchio: bool = False) -> Any:
        """Return augmented batches: made in this process, or by workers."""
        dataset, augment = self.vol3d_dataset(), vol3d_augment(self.roi, as_torchio=as_torchio)
        if num_workers == 0:
            return Vol3dBatches(dataset, augment, self.batch_size)
        return Vol3dWorkers(dataset, augment, self.batch_size, num_workers)

    def start(self, num_cases: int) -> Task:
        """Return the same task with its first cases only."""
        return Task(self.name, self.items[:num_cases], self.window_hu, self.roi, self.batch_size, self.cache_dir)


def loading(task: Task, repeats: int) -> Iterator[Row]:
    """Epoch 2 without augmentation: what a loader delivers once the cache is full; stacking batches is left out."""
    plain = Dataset(task.items, mt.Compose(task.transforms()))
    ours = task.vol3d_dataset()
    loaders = {f"monai {w}": make_loader(plain, 1, w, collate_fn=collate_ragged) for w in WORKERS}
    loaders |= {f"vol3d {w}": make_loader(ours, 1, w, collate_fn=collate_ragged) for w in WORKERS}
    timings = time_fastest(_drains(loaders), repeats)
    yield _compare(f"epoch 2 loading, {task.name}: MONAI Dataset", timings, "monai", 10)


def augmentation(task: Task, repeats: int) -> Iterator[Row]:
    """Augmented patches per second, each library with its best number of workers."""
    figure = f"augmented patches/s, {task.name}:"
    padded = task.transforms(is_padded=True)
    peers = {"monai": functools.partial(monai_dataset, task.items, padded, task.roi)}
    for name, module in MODULES.items():
        try:
            make = importlib.import_module(module).peer_dataset
        except ImportError as error:
            yield Row(f"{figure} {name}", target=_target(name), note=f"not installed ({error.name}): {INSTALL[name]}")
            continue
        peers[name] = functools.partial(make, task.items, padded, task.roi)
    for name, make in peers.items():
        dataset = make()
        loaders: dict[str, Any] = {f"{name} {w}": make_loader(dataset, task.batch_size, w) for w in WORKERS}
        for w in WORKERS:
            loaders[f"vol3d {w}"] = task.vol3d_batches(w, as_torchio=name == "torchio")
        timings = time_fastest(_drains(loaders), repeats, choosing_runs=WARM_EPOCHS)
        yield _compare(f"{figure} {name}", timings, name, _target(name))


def cold_start(task: Task, repeats: int) -> Iterator[Row]:
    """From nothing to the first batch, with a cache on disk that an earlier run has filled.

    The first row starts a new interpreter, as a user does; the others leave out start and imports.
    """
    for kind in ("monai", "vol3d"):
        drain(_cold_dataset(task, kind))
    figure = f"cold start, {task.name}: MONAI PersistentDataset"
    calls = {kind: functools.partial(_in_new_process, _first_batch, task, kind) for kind in ("monai", "vol3d")}
    yield _compare(f"{figure}, new process", time_alternatives(calls, repeats), "monai", 1)
    kinds = ("monai", "vol3d", "lazy")
    calls = {kind: functools.partial(_first_batch, task, kind) for kind in kinds}
    for state, before in (
        ("in the page cache", None),
        ("on disk only", functools.partial(_forget_pages, task.cache_dir)),
    ):
        timings = time_alternatives(calls, repeats, before=before)
        yield _compare(f"{figure}, imported, files {state}", timings, "monai", 1)
        yield _compare(f"{figure}, imported, files {state}, fill_first=False", timings, "monai", 1, ours="lazy")


def _cold_dataset(task: Task, kind: str) -> Any:
    if kind == "monai":
        folder = task.cache_dir / "persistent"
        return PersistentDataset(task.items, mt.Compose(task.transforms()), cache_dir=folder)
    return task.vol3d_dataset(fill_first=kind != "lazy")


def _first_batch(task: Task, kind: str) -> None:
    next(iter(make_loader(_cold_dataset(task, kind), 2, 0, collate_fn=collate_ragged)))


def _in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _forget_pages(folder: Path) -> None:
    """Drop the files of a folder from the page cache, as a restart or a large data set would."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def resident(task: Task, repeats: int) -> Iterator[Row]:
    """Memory that stays after an epoch, each data set in a process of its own."""
    task.vol3d_dataset()
    measured = {kind: _in_new_process(_resident_bytes, task, kind) for kind in ("monai", "vol3d")}
    del repeats  # memory hardly varies, and MONAI's data set takes minutes to load
    note = ", ".join(f"{kind} {size / 2**20:.0f} MiB" for kind, size in measured.items())
    figure = f"resident memory, {len(task.items)} cases of {task.name}: MONAI CacheDataset, vol3d with 1 GiB"
    yield Row(figure, target=3, note=note, ratio=measured["monai"] / measured["vol3d"])


def _resident_bytes(task: Task, kind: str) -> int:
    warnings.simplefilter("ignore")
    process = psutil.Process()
    drain(Dataset(task.items[:1], mt.Compose(task.transforms())))  # libraries and readers are loaded now
    gc.collect()
    before = process.memory_info().rss
    if kind == "monai":
        dataset: Any = CacheDataset(task.items, mt.Compose(task.transforms()), progress=False)
    else:
        dataset = task.vol3d_dataset(ram_bytes="1GiB")
    for _ in range(2):
        drain(dataset)
    gc.collect()
    return process.memory_info().rss - before


def training(task: Task, repeats: int) -> Iterator[Row]:
    """Whole epochs of the hippocampus network, loading and augmentation included.

    Every pipeline's network has all cores, as a training has. The bundle's pipeline compiles its network and keeps
    features channels-last; a second row does not compile (``--set compile=false``), and a third leaves both out, so
    that only the data path differs. The epoch that compiles is not timed; it takes a minute.
    """
    torch.set_num_threads(psutil.cpu_count())
    validation = Dataset(
        read_split(Path(task.items[0]["image"]).parents[1], "validation"), mt.Compose(task.transforms())
    )
    dataset = monai_dataset(task.items, task.transforms(is_padded=True), task.roi)
    batches: dict[str, Any] = {f"monai {w}": make_loader(dataset, task.batch_size, w, drop_last=True) for w in WORKERS}
    trainers = {name: EpochTrainer(source, CHOOSING_RUNS + repeats) for name, source in batches.items()}
    for ours, options in (
        ("vol3d", {"memory_format": torch.channels_last_3d, "is_compiled": True}),
        ("eager", {"memory_format": torch.channels_last_3d}),
        ("contiguous", {}),
    ):
        source = task.vol3d_batches(0)
        trainers[f"{ours} 0"] = EpochTrainer(source, CHOOSING_RUNS + repeats, **options)
    timings = time_fastest({name: trainer.run_epoch for name, trainer in trainers.items()}, repeats)
    best, _ = fastest(timings, "monai")
    for ours, what in (
        ("vol3d", "the bundle's pipeline"),
        ("eager", "the bundle's pipeline with compile=false"),
        ("contiguous", "features contiguous in both"),
    ):
        figure = f"whole training epoch, {task.name}: stock MONAI CacheDataset, {what}"
        row = _compare(figure, timings, "monai", 1.3, ours)
        dice = [trainers[name].dice(validation) for name in (best, f"{ours} 0")]
        note = f"{row.note}; Dice after {CHOOSING_RUNS + repeats} epochs {dice[0]:.3f} / {dice[1]:.3f}"
        yield Row(row.figure, row.ours, row.peer, row.target, note)


ROWS: dict[str, tuple[Callable[[Task, int], Iterator[Row]], tuple[str, ...]]] = {
    "loading": (loading, ("hippocampus", "head_neck_ct")),
    "augmentation": (augmentation, ("hippocampus", "head_neck_ct")),
    "training": (training, ("hippocampus",)),
    "cold_start": (cold_start, ("hippocampus", "head_neck_ct")),
    "resident": (resident, ("head_neck_ct",)),
}


def _target(peer: str) -> float:
    return {"monai": 3.0, "batchgeneratorsv2": 1.5, "torchio": 3.0}[peer]


def _drains(batches: dict[str, Any]) -> dict[str, Callable[[], None]]:
    return {name: functools.partial(drain, source) for name, source in batches.items()}


def _compare(figure: str, timings: dict[str, Timing], peer: str, target: float, ours: str = "vol3d") -> Row:
    peer_name, peer_timing = fastest(timings, peer)
    our_name, our_timing = fastest(timings, ours)
    workers = [name.split()[1] for name in (peer_name, our_name) if " " in name]
    return Row(figure, our_timing, peer_timing, target, f"workers {' / '.join(workers)}" if workers else "")


def make_tasks(data: Path, cache_dir: Path, *, is_quick: bool) -> dict[str, Task]:
    """Return the two data sets; ``is_quick`` takes few cases."""
    every = [
        {key: case[key] for key in ("image", "label", "case")}
        for split in ("training", "validation")
        for case in read_split(data / "head_neck_ct", split)
    ]
    hippocampus = read_split(data / "hippocampus", "training")
    tasks = {
        "hippocampus": Task("hippocampus", hippocampus, None, (40, 56, 40), 2, cache_dir / "a"),
        "head_neck_ct": Task("head_neck_ct", every, (-1000.0, 1000.0), (96, 96, 96), 2, cache_dir / "b"),
    }
    return {name: task.start(6) for name, task in tasks.items()} if is_quick else tasks


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the two data sets")
    parser.add_argument("--out", type=Path, help="JSON file with every timing")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions of each alternative")
    parser.add_argument("--cases", type=int, default=40, help="cases of head_neck_ct for the rows that time")
    parser.add_argument("--quick", action="store_true", help="six cases, two repetitions: does it run?")
    parser.add_argument("--only", choices=ROWS, help="one row")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of this process (training: all)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # third parties' notes would bury the table
    repeats = 2 if arguments.quick else arguments.repeats
    rows: list[Row] = []
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        tasks = make_tasks(arguments.data, Path(folder), is_quick=arguments.quick)
        for name in [arguments.only] if arguments.only else ROWS:
            torch.set_num_threads(arguments.threads)
            measure, data_sets = ROWS[name]
            for data_set in data_sets:
                task = tasks[data_set]
                task = task if name == "resident" or data_set == "hippocampus" else task.start(arguments.cases)
                for row in measure(task, repeats):
                    rows.append(row)
                    print(row.markdown(), flush=True)
    if arguments.out:
        machine = {"cpus": psutil.cpu_count(), "threads": arguments.threads, "python": platform.python_version()}
        content = {"machine": machine, "torch": torch.__version__, "rows": [row.as_dict() for row in rows]}
        arguments.out.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
