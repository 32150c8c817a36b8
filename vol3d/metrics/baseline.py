"""Another method's Dice on the same cases, to compare with case by case."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.errors import DataError
from vol3d.metrics.confidence import MeanInterval, paired_difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class BaselineDice:
    """Dice of another method by case and class.

    Args:
        name: What the baseline is called in tables and messages.
        dice: ``{case: {class: dice}}``; None or NaN where the other method's score is undefined.

    Raises:
        DataError: If ``dice`` is not such a mapping, or a value lies outside 0 to 1.

    Example:
        >>> baseline = BaselineDice("other", {"a": {"liver": 0.90}, "b": {"liver": 0.80}})
        >>> rows = [{"case": "a", "class": "liver", "dice": 0.92}, {"case": "b", "class": "liver", "dice": 0.84}]
        >>> round(baseline.difference(rows).mean, 3)
        0.03
    """

    name: str
    dice: Mapping[str, Mapping[str, float | None]]

    def __post_init__(self) -> None:
        if not isinstance(self.dice, dict) or not all(isinstance(classes, dict) for classes in self.dice.values()):
            raise DataError(f"baseline {self.name} must hold {{case: {{class: dice}}}}, got another form; rewrite it")
        for case, classes in self.dice.items():
            for class_name, value in classes.items():
                if value is None:
                    continue
                if not isinstance(value, int | float) or not (math.isnan(value) or 0 <= value <= 1):
                    raise DataError(
                        f"baseline {self.name} must hold Dice from 0 to 1, got {value!r} for {case} {class_name}; "
                        "correct it, or use null where Dice is undefined"
                    )

    @classmethod
    def read(cls, path: str | Path) -> BaselineDice:
        """Return the baseline of a JSON file, named after the file.

        Raises:
            DataError: If the file is missing, no JSON, or not ``{case: {class: dice}}``.
        """
        path = Path(path)
        try:
            dice = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"baseline must be a readable JSON file, got {path} ({error.__class__.__name__}); "
                "give {case: {class: dice}}"
            ) from error
        return cls(path.stem, dice)

    def check_has(self, case: str, class_names: Iterable[str]) -> None:
        """Check that a case can be compared, before hours of inference on the others.

        Raises:
            DataError: If the baseline lacks the case or one of its classes, which is named.
        """
        if case not in self.dice:
            raise DataError(
                f"baseline {self.name} must hold every scored case, got none named {case}; "
                "add it, or evaluate only the cases of the baseline"
            )
        missing = sorted(set(class_names) - set(self.dice[case]))
        if missing:
            raise DataError(
                f"baseline {self.name} must hold every class of case {case}, got none named {', '.join(missing)}; "
                "use null where Dice is undefined"
            )

    def difference(self, rows: Iterable[Mapping[str, Any]]) -> MeanInterval:
        """Return the mean paired difference of each case's mean foreground Dice, ours minus the baseline's.

        A class counts in a case only if both methods have a defined Dice there.

        Args:
            rows: Scores with ``case``, ``class`` and ``dice``.

        Raises:
            DataError: If the baseline lacks a case or a class.
        """
        ours: dict[str, list[float]] = {}
        others: dict[str, list[float]] = {}
        for row in rows:
            case, class_name = row["case"], row["class"]
            self.check_has(case, [class_name])
            our_dice, other_dice = row["dice"], self.dice[case][class_name]
            if other_dice is not None and math.isfinite(our_dice) and math.isfinite(other_dice):
                ours.setdefault(case, []).append(our_dice)
                others.setdefault(case, []).append(other_dice)
        return paired_difference(
            [float(np.mean(scores)) for scores in ours.values()],
            [float(np.mean(scores)) for scores in others.values()],
        )
