"""Every figure of the inference engine against its peers in one run; writes JSON and prints a Markdown table.

python scripts/benchmark_inference.py --data DIR --out FILE.json [--quick] [--only ROW ...] [--weights model.pt]
    [--nnunet-python PYTHON]

Rows: network, pipeline, nnunet, skip, memory_24, memory_100, limit, growth. Without --weights the network is random and
its labels are noise: times hold, Dice scores between engines are then lower bounds. How to make the environment of
--nnunet-python is in the docstring of scripts/nnunet_peer.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from inference_cases import Case, Settings, build_network, find_cases
from inference_pipelines import MonaiPipeline, Vol3dPipeline, mean_dice, prepare
from monai.inferers import SlidingWindowInferer
from paired_timing import time_alternatives

from vol3d.geometry import VolumeGeometry
from vol3d.inference.body_mask import coarse_body
from vol3d.inference.network_cost import network_cost
from vol3d.inference.sliding_window import StreamingSlidingWindowInferer

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 2**30
HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all rows need."""

    options: argparse.Namespace
    settings: Settings
    cases: list[Case]
    folder: Path

    @property
    def repeats(self) -> int:
        """Timed repetitions of each alternative."""
        return 1 if self.options.quick else self.options.repeats


def network_rows(bench: Bench) -> list[Row]:
    """Time identical windows through MONAI's inferer with eager PyTorch and through vol3d's with its runtime."""
    network = build_network(bench.settings)
    pipeline = Vol3dPipeline(bench.settings, bench.folder, bench.options.precision)
    rows = []
    for case in bench.cases:
        volume = prepare(case, bench.settings)[0].as_tensor()
        ours = StreamingSlidingWindowInferer(
            bench.settings.roi_size, pipeline.runtime.windows_per_call, bench.settings.overlap
        )
        theirs = SlidingWindowInferer(bench.settings.roi_size, 1, bench.settings.overlap, mode="gaussian")

        def run_ours(volume: torch.Tensor = volume, inferer: StreamingSlidingWindowInferer = ours) -> None:
            for _ in inferer.stream(volume, pipeline.runtime):
                pass

        def run_theirs(volume: torch.Tensor = volume, inferer: SlidingWindowInferer = theirs) -> None:
            with torch.inference_mode():
                inferer(volume[None], network)

        row = timed_row(bench, f"network stage, {case.name}", {"monai": run_theirs, "vol3d": run_ours}, at_least=2.5)
        row["windows"] = ours.plan(volume.shape[1:]).num_windows
        row["runtime"] = vars(pipeline.runtime.report)
        rows.append(row)
    return rows


def pipeline_rows(bench: Bench) -> list[Row]:
    """Time file to label file, MONAI's transforms against vol3d's defaults."""
    ours, theirs = Vol3dPipeline(bench.settings, bench.folder, bench.options.precision), MonaiPipeline(bench.settings)
    rows = []
    for case in bench.cases:
        outputs = {name: bench.folder / f"{name}.nii.gz" for name in ("monai", "vol3d")}
        calls: dict[str, Callable[[], object]] = {
            "monai": lambda case=case, path=outputs["monai"]: theirs(case, path),  # type: ignore[misc]
            "vol3d": lambda case=case, path=outputs["vol3d"]: ours(case, path),  # type: ignore[misc]
        }
        row = timed_row(bench, f"file to labels, {case.name}", calls, at_least=4.0)
        row["dice_between"] = mean_dice(outputs["monai"], outputs["vol3d"])
        rows.append(row)
    return rows


def nnunet_rows(bench: Bench) -> list[Row]:
    """Time file to label file against nnU-Net's predictor, which runs in an environment of its own."""
    if not bench.options.nnunet_python:
        return [{"figure": "file to labels, nnU-Net v2", "skipped": "no --nnunet-python; see scripts/nnunet_peer.py"}]
    ours = Vol3dPipeline(bench.settings, bench.folder, bench.options.precision)
    network = bench.folder / "network.pt"
    torch.save(build_network(bench.settings), network)
    rows = []
    for case in bench.cases:
        job = bench.folder / "job.json"
        spacing = case.spacing_mm or prepare(case, bench.settings)[1].spacing_mm
        job.write_text(
            json.dumps(
                {
                    "network": str(network),
                    "image": case.path,
                    "output": str(bench.folder / "nnunet"),
                    # nnU-Net's arrays are z y x.
                    "spacing_mm": list(reversed(spacing)),
                    "roi_size": list(reversed(bench.settings.roi_size)),
                    "window_hu": bench.settings.window_hu,
                    "num_classes": bench.settings.num_classes,
                    "num_threads": torch.get_num_threads(),
                    "repeats": 1,
                }
            )
        )
        peer: list[dict[str, list[float]]] = []

        def run_peer(job: Path = job, peer: list[dict[str, list[float]]] = peer) -> None:
            peer.append(run_json([bench.options.nnunet_python, str(HERE / "nnunet_peer.py"), str(job)]))

        def run_ours(case: Case = case) -> None:
            ours(case, bench.folder / "vol3d.nii.gz")

        run_ours()
        timings = time_alternatives({"vol3d": run_ours}, bench.repeats, warm_up=0)
        for _ in range(bench.repeats):
            run_peer()
        # Imports of the peer's process are not counted: it times itself.
        wall = sorted(p["wall_s"][0] for p in peer)[len(peer) // 2]
        cpu = sorted(p["cpu_s"][0] for p in peer)[len(peer) // 2]
        rows.append(
            ratio_row(
                f"file to labels, nnU-Net v2, {case.name}",
                (wall, cpu),
                (timings["vol3d"].wall_s, timings["vol3d"].cpu_s),
                6.0,
            )
        )
    return rows


def skip_rows(bench: Bench) -> list[Row]:
    """Say what skipping air saves and changes."""
    rows = []
    for case in bench.cases:
        results = {}
        for is_skipping in (False, True):
            pipeline = Vol3dPipeline(bench.settings, bench.folder, bench.options.precision, is_skipping=is_skipping)
            output = bench.folder / f"skip_{is_skipping}.nii.gz"
            pipeline(case, output)
            results[is_skipping] = (output, pipeline.windows[1])
        dice = mean_dice(results[False][0], results[True][0])
        rows.append(
            {
                "figure": f"windows computed when air is skipped, {case.name}",
                "ratio": results[True][1] / max(results[False][1], 1),
                "dice_between": dice,
            }
        )
    return rows


def memory_rows(bench: Bench, *, classes: int) -> list[Row]:
    """Measure peak memory with a stub network: against MONAI's with few classes, against a limit with many."""
    if classes == 24:
        shape = [128, 128, 96] if bench.options.quick else [512, 512, 300]
        # The limit costs vol3d windows that tiles share; its time with them stands beside the memory.
        peaks = {"monai": peak_job("monai", shape, classes), "vol3d": peak_job("vol3d", shape, classes, "512MiB")}
        figure = f"peak memory, {classes} classes, {shape}"
        ratio = peaks["monai"]["peak_bytes"] / peaks["vol3d"]["peak_bytes"]
        return [{"figure": figure, "at_least": 8.0, "ratio": ratio, **peaks}]
    shape = [128, 128, 128] if bench.options.quick else [512, 512, 512]
    peak = peak_job("vol3d", shape, classes, "2GiB")
    return [
        {
            "figure": f"peak memory, {classes} classes, {shape}, GiB",
            "at_most": 4.0,
            "ratio": peak["peak_bytes"] / GIB,
            "vol3d": peak,
        }
    ]


def growth_rows(bench: Bench) -> list[Row]:
    """Measure how memory and time grow with slices and with classes."""
    edge, slices = (128, (50, 100)) if bench.options.quick else (256, (100, 250, 500, 750, 1000))
    rows = []
    for count in slices:
        peak = peak_job("vol3d", [edge, edge, count], 24)
        rows.append(
            {
                "figure": f"growth, {count} slices of {edge}x{edge}, 24 classes, GiB",
                "ratio": peak["peak_bytes"] / GIB,
                **peak,
            }
        )
    for classes in (2, 24) if bench.options.quick else (2, 10, 24, 50, 100):
        peak = peak_job("vol3d", [edge, edge, 100 if bench.options.quick else 300], classes)
        rows.append({"figure": f"growth, {classes} classes, GiB", "ratio": peak["peak_bytes"] / GIB, **peak})
    return rows


def limit_rows(bench: Bench) -> list[Row]:
    """Compare the whole pipeline with one dense pass over the body at the measured matrix-product rate."""
    settings = bench.settings
    window = (1, *settings.roi_size)
    flops_per_voxel = network_cost(build_network(settings), window).flops / (settings.roi_size[0] ** 3)
    rate = matrix_rate()
    pipeline = Vol3dPipeline(settings, bench.folder, bench.options.precision)
    rows = []
    for case in bench.cases:
        image, _ = prepare(case, settings)
        low, high = settings.window_hu
        spacing = VolumeGeometry(tuple(image.shape[1:]), image.affine.numpy()).spacing_mm
        body, _ = coarse_body(image.as_tensor()[0], (-500 - low) / (high - low), spacing, 0)
        voxels = float(body.mean()) * image[0].numel()
        ours = time_alternatives({"vol3d": lambda case=case: pipeline(case, bench.folder / "l.nii.gz")}, bench.repeats)  # type: ignore[misc]
        limit_s = voxels * flops_per_voxel / rate
        rows.append(
            {
                "figure": f"time over the limit, {case.name}",
                "at_most": 2.0,
                "ratio": ours["vol3d"].wall_s / limit_s,
                "limit_s": limit_s,
                "matrix_gflops": rate / 1e9,
                "vol3d": ours["vol3d"].as_dict(),
            }
        )
    return rows


def matrix_rate() -> float:
    """Return the float32 matrix-product rate of PyTorch with its threads, in operations a second: best of ten."""
    size = 2048
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def timed_row(bench: Bench, figure: str, calls: dict[str, Callable[[], object]], at_least: float) -> Row:
    """Time two alternatives in both orders; the ratio is MONAI's median over vol3d's."""
    timings = time_alternatives(calls, bench.repeats)
    monai, ours = timings["monai"], timings["vol3d"]
    row = ratio_row(figure, (monai.wall_s, monai.cpu_s), (ours.wall_s, ours.cpu_s), at_least)
    return {**row, "timings": {name: timing.as_dict() for name, timing in timings.items()}}


def ratio_row(figure: str, peer: tuple[float, float], ours: tuple[float, float], at_least: float) -> Row:
    """Return a row of wall and CPU seconds."""
    return {
        "figure": figure,
        "at_least": at_least,
        "ratio": peer[0] / ours[0],
        "cpu_ratio": peer[1] / ours[1],
        "peer_wall_cpu_s": peer,
        "vol3d_wall_cpu_s": ours,
    }


def peak_job(engine: str, shape: list[int], classes: int, memory: str | None = None) -> dict[str, Any]:
    """Run scripts/peak_memory_job.py in a fresh process."""
    command = [sys.executable, str(HERE / "peak_memory_job.py"), engine, "--classes", str(classes), "--shape"]
    return run_json([*command, *map(str, shape), *(["--memory", memory] if memory else [])])


def run_json(command: list[str]) -> dict[str, Any]:
    """Run a program and return the JSON of its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own scripts and a Python the caller names
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "network": network_rows,
    "pipeline": pipeline_rows,
    "nnunet": nnunet_rows,
    "skip": skip_rows,
    "memory_24": lambda bench: memory_rows(bench, classes=24),
    "memory_100": lambda bench: memory_rows(bench, classes=100),
    "limit": limit_rows,
    "growth": growth_rows,
}


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = ["| figure | to hold | measured | CPU ratio | Dice between |", "|---|---|---|---|---|"]
    for row in rows:
        hold = (
            f"at least {row['at_least']}"
            if "at_least" in row
            else f"at most {row['at_most']}"
            if "at_most" in row
            else ""
        )
        measured = row["skipped"] if "skipped" in row else f"{row['ratio']:.2f}"
        cpu, dice = (
            f"{row[key]:.{digits}f}" if key in row else "" for key, digits in (("cpu_ratio", 2), ("dice_between", 4))
        )
        lines.append(f"| {row['figure']} | {hold} | {measured} | {cpu} | {dice} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with head_neck_ct and chest_ct")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="small volumes, one repetition: a trial of the script")
    parser.add_argument("--only", choices=list(ROWS), nargs="+", default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--weights", help="weights of the attention U-Net 16-32-64-128 with one input channel")
    parser.add_argument("--classes", type=int, default=8, help="channels of the network's output")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--precision", default="auto", choices=["auto", "f32", "bf16", "f16"])
    parser.add_argument("--nnunet-python", help="Python of an environment with nnU-Net v2")
    options = parser.parse_args()
    settings = Settings(overlap=options.overlap, num_classes=options.classes, weights=options.weights)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        cases = find_cases(options.data, Path(folder), is_quick=options.quick)
        bench = Bench(options, settings, cases, Path(folder))
        for name in options.only:
            rows += ROWS[name](bench)
            sys.stderr.write(f"{name} done\n")
            record = {"machine": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
            options.out.write_text(json.dumps({**record, "settings": vars(settings), "rows": rows}, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
