"""Predict many cases: each one whole or absent, resumable, and none stopped by another's fault.

Every case becomes the folder ``OUT/CASE`` with the files of its result, ``report.json`` and what ``draw`` adds. The
folder is built aside and renamed when all of it is written (``case_folder``).
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal

from vol3d.data.content_digest import ContentDigests
from vol3d.data.output_folder import require_writable
from vol3d.data.volume_reader import voxel_file
from vol3d.errors import DataError
from vol3d.inference.case_folder import REPORT_NAME, check_replaceable, new_folder, read_report, working_in
from vol3d.inference.case_result import ResultT
from vol3d.inference.run_record import run_report
from vol3d.inference.stage_timer import timed_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vol3d.data.cases import Case
    from vol3d.inference.case_result import ScanPredictor
    from vol3d.inference.run_record import RunIdentity

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseOutcome:
    """What became of one case.

    Args:
        case: Name of the case.
        status: ``done``, ``skipped`` (an equal run has finished it) or ``failed``.
        folder: Where its files are.
        report: Content of its ``report.json``, for a case that is done or was skipped.
        seconds: Wall time.
        error: Why it failed.
    """

    case: str
    status: Literal["done", "skipped", "failed"]
    folder: Path
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    error: Exception | None = None


@dataclass(frozen=True)
class CaseJob(Generic[ResultT]):
    """Where and how cases are predicted.

    Args:
        predictor: The bundle, ready to run.
        identity: What decides the result, for the report and for skipping.
        output_dir: Folder of the case folders.
        overwrite: Replace a case folder that came from another input, bundle or setting.
        series_uid: Which series of DICOM folders that hold several.
        draw: Adds pictures to the folder that it is given.
    """

    predictor: ScanPredictor[ResultT]
    identity: RunIdentity
    output_dir: Path
    overwrite: bool = False
    series_uid: str | None = None
    draw: Callable[[Path, ResultT], None] | None = None

    def run(self, cases: Sequence[Case]) -> Iterator[CaseOutcome]:
        """Predict each case and yield what became of it; a failed case does not stop the others.

        Raises:
            OutputError: If the output folder cannot be made or written.
        """
        require_writable(self.output_dir)
        with working_in(self.output_dir):
            for case in cases:
                yield self._outcome(case)

    def _outcome(self, case: Case) -> CaseOutcome:
        started = time.perf_counter()
        folder = self.output_dir / case.name
        try:
            status, report = self._run_case(case, folder)
        except Exception as error:  # whatever one case does, the others get their turn
            logger.debug("case failed", exc_info=True)
            return CaseOutcome(case.name, "failed", folder, seconds=time.perf_counter() - started, error=error)
        return CaseOutcome(case.name, status, folder, report, time.perf_counter() - started)

    def _run_case(self, case: Case, folder: Path) -> tuple[Literal["done", "skipped"], dict[str, Any]]:
        if case.name in ("", ".", "..") or Path(case.name).name != case.name:
            raise DataError(f"case must have the name of a folder, got {case.name!r}; rename {case.path}")
        input_sha256 = _input_digest(case.path)
        fingerprint = self.identity.fingerprint(input_sha256, self.series_uid)
        finished = _finished_report(folder, fingerprint)
        if finished is not None:
            return "skipped", finished
        check_replaceable(folder, self.overwrite)
        result = self.predictor(case.path, series_uid=self.series_uid)
        with new_folder(folder) as aside:
            with timed_stage(result.seconds, "write"):
                result.write(aside)
            if self.draw is not None:
                with timed_stage(result.seconds, "draw"):
                    self.draw(aside, result)
            digests = ContentDigests()
            files = {path.name: digests.digest(path) for path in sorted(aside.iterdir())}
            report = run_report(case.name, self.identity, result, {"input": input_sha256, **files}, fingerprint)
            (aside / REPORT_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return "done", report


def _input_digest(path: Path) -> str:
    """Return the SHA-256 of a file or folder; of a header with its voxels in a file of their own, over both."""
    digests = ContentDigests()
    data_path = path if path.is_dir() else voxel_file(path)
    if data_path == path:
        return digests.digest(path)
    return hashlib.sha256(f"{digests.digest(path)}\n{digests.digest(data_path)}".encode()).hexdigest()


def _finished_report(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the report of a case that an equal run has finished and whose files are all there, or None."""
    report = read_report(folder)
    if report is None or report.get("fingerprint") != fingerprint:
        return None
    written = [name for name in report["sha256"] if name != "input"]
    return report if all((folder / name).is_file() for name in written) else None
