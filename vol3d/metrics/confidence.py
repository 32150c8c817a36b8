"""How sure a mean over few cases is: percentile bootstrap, alone and for the difference of two methods.

Cases are resampled, never voxels or classes: the classes of one case share its image quality and its reader.
The percentile interval is the plain one (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vol3d.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Resamples are drawn in blocks, so that ten thousand of a large study never stand in memory at once.
BLOCK_ELEMENTS = 2**22


@dataclass(frozen=True)
class MeanInterval:
    """A mean over cases with its bootstrap interval.

    Args:
        mean: NaN if no case has a value.
        low: Lower end; NaN with fewer than two cases, which say nothing about their spread.
        high: Upper end, likewise.
        num_cases: Cases that entered.
        num_left_out: Cases without any finite value (undefined scores, infinite distances).
    """

    mean: float
    low: float
    high: float
    num_cases: int
    num_left_out: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return plain JSON values; NaN, which JSON does not know, becomes None."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        plain: dict[str, float | int | None] = {k: None if math.isnan(v) else v for k, v in values.items()}
        return plain | {"num_cases": self.num_cases, "num_left_out": self.num_left_out}


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> MeanInterval:
    """Return the mean over cases and its percentile bootstrap interval; the same values give the same interval.

    Args:
        values: One score per case ``(N,)``, or per case and class ``(N, K)``: then the mean is over cases, then
            over classes. Scores that are not finite are left out; a case without any is not resampled.
        confidence: Share of resamples inside the interval, between 0 and 1.
        num_resamples: Bootstrap resamples; 10,000 keep the ends steady to about a hundredth of the width.
        seed: Of the resampling.

    Raises:
        UsageError: If ``values`` has more than two axes or an argument is out of range.

    Example:
        >>> interval = bootstrap_interval([0.90, 0.88, 0.92, float("nan")])
        >>> round(interval.mean, 3), round(interval.low, 3), interval.num_cases, interval.num_left_out
        (0.9, 0.88, 3, 1)
    """
    table = np.array(values, dtype=np.float64)
    if table.ndim not in (1, 2):
        raise UsageError(f"values must have 1 or 2 axes, got {table.ndim}; give cases, or cases by classes")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, got {confidence}; use 0.95")
    if num_resamples < 1:
        raise UsageError(f"num_resamples must be at least 1, got {num_resamples}; use 10000")
    if table.ndim == 1:
        table = table[:, None]
    kept = table[np.isfinite(table).any(axis=1)]
    num_cases, num_left_out = len(kept), len(table) - len(kept)
    if num_cases == 0:
        return MeanInterval(math.nan, math.nan, math.nan, num_cases, num_left_out)
    mean = float(_mean_of_cases(kept, np.arange(num_cases)[None])[0])
    if num_cases == 1:
        return MeanInterval(mean, math.nan, math.nan, num_cases, num_left_out)
    tail = (1 - confidence) / 2
    low, high = np.quantile(_resample_means(kept, num_resamples, seed), [tail, 1 - tail])
    return MeanInterval(mean, float(low), float(high), num_cases, num_left_out)


def paired_difference(
    values: ArrayLike, others: ArrayLike, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> MeanInterval:
    """Return the mean of ``values - others`` on the same cases, with its bootstrap interval.

    Pairing removes what makes a case hard for both methods, so a small difference shows with few cases. The
    difference is clear at the given confidence if the interval does not hold 0.

    Args:
        values: One score per case, ``(N,)``.
        others: Scores of the other method on the same cases in the same order, ``(N,)``. A pair with a value
            that is not finite is left out.
        confidence: As in `bootstrap_interval`.
        num_resamples: As in `bootstrap_interval`.
        seed: As in `bootstrap_interval`.

    Raises:
        UsageError: If the two are not one score per case each, or an argument is out of range.

    Example:
        >>> round(paired_difference([0.91, 0.89, 0.93], [0.90, 0.88, 0.91]).mean, 4)
        0.0133
    """
    first, second = np.array(values, dtype=np.float64), np.array(others, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise UsageError(
            f"others must have the shape (N,) of values, got {second.shape} against {first.shape}; "
            "give both methods' scores of the same cases"
        )
    is_pair = np.isfinite(first) & np.isfinite(second)
    differences = np.full(first.shape, math.nan)
    differences[is_pair] = first[is_pair] - second[is_pair]
    return bootstrap_interval(differences, confidence, num_resamples, seed)


def _resample_means(table: NDArray[np.float64], num_resamples: int, seed: int) -> NDArray[np.float64]:
    num_cases = len(table)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // num_cases)
    sizes = [min(block, num_resamples - start) for start in range(0, num_resamples, block)]
    return np.concatenate(
        [_mean_of_cases(table, generator.integers(0, num_cases, size=(size, num_cases))) for size in sizes]
    )


def _mean_of_cases(table: NDArray[np.float64], cases: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return for each row of case indices the mean over cases, then over classes, of the finite values."""
    sums, num_classes = np.zeros(len(cases)), np.zeros(len(cases))
    for column in table.T:
        is_finite = np.isfinite(column)
        num_finite = is_finite[cases].sum(axis=1)
        totals = np.where(is_finite, column, 0.0)[cases].sum(axis=1)
        # A class that few cases have may be missing from a resample: that resample's mean is over the others.
        sums += np.divide(totals, num_finite, out=np.zeros(len(cases)), where=num_finite > 0)
        num_classes += num_finite > 0
    return sums / num_classes
