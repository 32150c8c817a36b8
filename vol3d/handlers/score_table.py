"""Scores every case of an evaluation and writes them as a table, with a summary that states how sure it is."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.distributed as dist
from ignite.engine import Events
from monai.data.meta_tensor import MetaTensor

from vol3d.data.atomic_write import atomic_path
from vol3d.errors import DataError, GeometryError, OutputError, UsageError
from vol3d.geometry import VolumeGeometry
from vol3d.metrics.baseline import BaselineDice
from vol3d.metrics.score_summary import format_summary, summarize_scores
from vol3d.metrics.segmentation_scores import score_labelmap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

TABLE_NAME = "scores_per_case.csv"
SUMMARY_NAME = "scores_summary.json"


class ScoreTableHandler:
    """Scores each case when its iteration ends; at the end writes ``scores_per_case.csv`` and ``scores_summary.json``.

    Attach it to a MONAI evaluator whose postprocessing brings ``pred`` (and ``label``, if it was resampled) back
    to the grid of the scan: ``engine.state.output`` must hold decollated items whose ``label`` and ``pred`` are
    ``1 H W D`` MetaTensors of label values. The case's name is the item's ``case``. MONAI's ``MetricsSaver`` knows
    neither millimetres of the scan, intervals, baselines nor organs that were not contoured.

    Across processes the rows of all ranks are gathered; rank 0 alone writes. ``engine.state.metrics["mean_dice"]``
    is set on every rank.

    Args:
        output_dir: Folder of the two files; made if missing.
        class_names: Name of each label value; 0 (background) is left out. Keys may be strings, as in JSON.
        nsd_tolerance_mm: Surface deviation that NSD counts as agreement.
        baseline: JSON file ``{case: {class: dice}}`` of another method, to compare with case by case; None for none.
        include: For partial labels, the classes that each case's reference holds, ``{case: [class names]}``;
            others are not scored there. None if all references are complete.

    Raises:
        UsageError: If no class is named, or ``include`` names an unknown class.
        DataError: If the baseline cannot be read. While running: if an item has no case name, a case comes twice
            or is missing from ``baseline`` or ``include``, ``pred`` and ``label`` differ in shape or grid, or hold
            unknown labels.
        OutputError: If the files cannot be written.
    """

    def __init__(
        self,
        output_dir: str | Path,
        class_names: Mapping[int | str, str],
        nsd_tolerance_mm: float = 1.0,
        baseline: str | Path | None = None,
        include: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = {int(value): name for value, name in class_names.items() if int(value) != 0}
        if not self.class_names:
            raise UsageError(f"class_names must name a foreground class, got {dict(class_names)}; add one")
        self.nsd_tolerance_mm = nsd_tolerance_mm
        self.baseline = BaselineDice.read(baseline) if baseline else None
        self.include = include
        for case, names in (include or {}).items():
            unknown = sorted(set(names) - set(self.class_names.values()))
            if unknown:
                raise UsageError(
                    f"include must use the names of class_names, got {', '.join(unknown)} for case {case}; "
                    f"the names are {', '.join(self.class_names.values())}"
                )
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def attach(self, engine: Any) -> None:
        """Score at the end of each iteration of ``engine``, an `ignite.engine.Engine`, and write at its end."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score_batch)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _forget(self, _engine: Any) -> None:
        self._rows = {}

    def _score_batch(self, engine: Any) -> None:
        items, sources = engine.state.output, engine.state.batch
        if not isinstance(items, list):
            raise UsageError(
                f"engine.state.output must be a list of items, got {type(items).__name__}; let the evaluator decollate"
            )
        # MONAI keeps keys that came with the batch, such as the case name, out of the output.
        for item, source in zip(items, sources, strict=True):
            self._score_item({**source, **item})

    def _score_item(self, item: Mapping[str, Any]) -> None:
        if "case" not in item:
            raise DataError("item must hold its name under the key case, got none; add case to the data list")
        case = str(item["case"])
        if case in self._rows:
            raise DataError(f"case must come once, got {case} twice; remove the second entry from the data list")
        names = self._names_of(case)
        if self.baseline is not None:
            self.baseline.check_has(case, names)
        pred, label, geometry = _read_item(case, item)
        try:
            rows = score_labelmap(pred, label, self.class_names, geometry.spacing_mm, self.nsd_tolerance_mm)
        except DataError as error:
            raise type(error)(f"case {case}: {error}") from error
        self._rows[case] = [{"case": case, **row} for row in rows if row["class"] in names]

    def _names_of(self, case: str) -> set[str]:
        if self.include is None:
            return set(self.class_names.values())
        if case not in self.include:
            raise DataError(f"include must hold every case, got none named {case}; list the classes it has")
        return set(self.include[case])

    def _finish(self, engine: Any) -> None:
        rows = [row for case_rows in _gather(self._rows).values() for row in case_rows]
        summary = summarize_scores(rows, list(self.class_names.values()), self.baseline)
        mean_dice = summary["mean_dice"]
        engine.state.metrics["mean_dice"] = math.nan if mean_dice is None else mean_dice
        if _is_distributed() and dist.get_rank() != 0:
            return
        _write_text(self.output_dir / TABLE_NAME, _as_csv(rows))
        _write_text(self.output_dir / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
        logger.info("%s\nwritten to %s", format_summary(summary), self.output_dir)


def _read_item(case: str, item: Mapping[str, Any]) -> tuple[NDArray[Any], NDArray[Any], VolumeGeometry]:
    """Return the labelmaps ``H W D`` of a decollated item and the grid that both have."""
    labelmaps, grids = {}, {}
    for key in ("pred", "label"):
        tensor = item.get(key)
        if not isinstance(tensor, MetaTensor):
            raise DataError(
                f"case {case}: {key} must be a MetaTensor, got {type(tensor).__name__}; keep the affine in transforms"
            )
        if tensor.ndim != 4 or tensor.shape[0] != 1:
            raise GeometryError(
                f"case {case}: {key} must have shape 1 H W D, got {tuple(tensor.shape)}; "
                "apply AsDiscreted(argmax=True) before scoring"
            )
        labelmaps[key] = _as_labelmap(f"case {case}: {key}", tensor.as_tensor().cpu().numpy()[0])
        grids[key] = VolumeGeometry(labelmaps[key].shape, np.asarray(tensor.affine, dtype=np.float64))
    gap = grids["pred"].difference(grids["label"])
    if gap is not None:
        raise GeometryError(
            f"case {case}: pred must lie on the grid of label, got {gap}; restore pred to the grid of the scan"
        )
    return labelmaps["pred"], labelmaps["label"], grids["label"]


def _as_labelmap(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers as integers; MONAI's transforms turn labels into float32."""
    if not np.issubdtype(values.dtype, np.floating):
        return values
    if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise DataError(f"{name} must hold whole label values, got fractions or NaN; resample labels with mode nearest")
    return values.astype(np.int32)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _gather(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of all processes by case name, in the order of the names."""
    parts: list[Any] = [rows]
    if _is_distributed():
        parts = [None] * dist.get_world_size()
        dist.all_gather_object(parts, rows)
    # A distributed sampler repeats cases to give every rank the same number: the name keeps one of each.
    merged = {case: case_rows for part in parts for case, case_rows in part.items()}
    return dict(sorted(merged.items()))


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV: undefined scores are empty cells, infinite ones are ``inf``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _as_cell(value) for key, value in row.items()})
    return text.getvalue()


def _as_cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _write_text(path: Path, text: str) -> None:
    try:
        with atomic_path(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"output_dir must be a folder that can be written, got {path.parent} ({error.strerror}); choose another"
        ) from error
