"""How an error looks at the command line: one line and an exit code."""

from __future__ import annotations

from vol3d.errors import DataError, Vol3dError

MAX_CHARACTERS = 300


def deliberate_error(error: BaseException | None) -> Vol3dError | None:
    """Return the deliberate error behind another: MONAI's config parser and transforms wrap what they run."""
    while error is not None and not isinstance(error, Vol3dError):
        error = error.__cause__ or error.__context__
    return error


def describe_error(error: BaseException) -> str:
    """Return one line: a deliberate error's message, or type and shortened message of any other."""
    deliberate = deliberate_error(error)
    if deliberate is not None:
        return " ".join(str(deliberate).split())
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 4]} ..."


def case_exit_code(error: BaseException) -> int:
    """Return the exit code for a failed case; what no deliberate error explains counts as a fault of its data."""
    deliberate = deliberate_error(error)
    return DataError.exit_code if deliberate is None else deliberate.exit_code
