"""The scores of all cases in a page: means with intervals per class and over the foreground, as JSON and as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vol3d.errors import UsageError
from vol3d.metrics.confidence import MeanInterval, bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vol3d.metrics.baseline import BaselineDice

CONFIDENCE = 0.95


def summarize_scores(
    rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], baseline: BaselineDice | None = None
) -> dict[str, Any]:
    """Return the mean of every score over cases with its 95 percent bootstrap interval, as plain JSON values.

    Args:
        rows: One row per case and class: ``case``, ``class`` and scores. A case may lack classes that its
            reference does not hold.
        class_names: Foreground classes in the order of the table.
        baseline: Another method's Dice on the same cases.

    Returns:
        ``num_cases``, ``mean_dice`` (over cases, then over classes), ``foreground`` and ``classes`` (for each
        score ``mean``, ``low``, ``high``, ``num_cases``, ``num_left_out``; left out are cases where the score is
        undefined, infinite or not taken), and ``baseline_difference`` if there is a baseline.

    Raises:
        UsageError: If there are no rows.
        DataError: If the baseline lacks a case.
    """
    if not rows:
        raise UsageError("rows must hold at least one scored case, got none; check the data list")
    cases = sorted({row["case"] for row in rows})
    by_place = {(row["case"], row["class"]): row for row in rows}
    scores = [key for key in rows[0] if key not in ("case", "class")]

    def column(score: str, class_name: str) -> list[float]:
        return [by_place.get((case, class_name), {}).get(score, math.nan) for case in cases]

    def table(score: str) -> list[list[float]]:
        return [list(case_values) for case_values in zip(*(column(score, name) for name in class_names), strict=True)]

    # Volumes of different organs have no meaningful mean; their errors in percent and the rest have.
    foreground = {score: _mean(table(score)) for score in scores if not score.startswith("volume_")}
    summary: dict[str, Any] = {
        "num_cases": len(cases),
        "confidence": CONFIDENCE,
        "mean_dice": foreground["dice"].as_dict()["mean"],
        "foreground": {score: interval.as_dict() for score, interval in foreground.items()},
        "classes": {name: {score: _mean(column(score, name)).as_dict() for score in scores} for name in class_names},
    }
    if baseline is not None:
        summary["baseline_difference"] = {"baseline": baseline.name, **baseline.difference(rows).as_dict()}
    return summary


def format_summary(summary: Mapping[str, Any]) -> str:
    """Return a summary as a small table of plain text, one line per class."""
    scores = list(summary["foreground"])
    width = max(len(name) for name in (*summary["classes"], "foreground"))
    lines = [
        f"{summary['num_cases']} cases, mean and {summary['confidence']:.0%} interval",
        "  ".join([" " * width, *(f"{score:<24}" for score in scores)]).rstrip(),
    ]
    for name, row in {**summary["classes"], "foreground": summary["foreground"]}.items():
        cells = (f"{_format_interval(row[score], score):<24}" for score in scores)
        lines.append("  ".join([f"{name:<{width}}", *cells]).rstrip())
    if "baseline_difference" in summary:
        difference = summary["baseline_difference"]
        lines.append(
            f"Dice minus {difference['baseline']}, paired over {difference['num_cases']} cases: "
            f"{_format_interval(difference, 'dice', sign='+')}"
        )
    return "\n".join(lines)


def _mean(values: Any) -> MeanInterval:
    return bootstrap_interval(values, CONFIDENCE)


def _format_interval(interval: Mapping[str, float | None], score: str, sign: str = "") -> str:
    digits = 2 if score.endswith("_mm") else 4
    numbers = [interval["mean"], interval["low"], interval["high"]]
    mean, low, high = ("-" if number is None else f"{number:{sign}.{digits}f}" for number in numbers)
    return f"{mean} [{low}, {high}]" if interval["low"] is not None else mean
