"""Refusals: one line of at most 200 characters that starts with a code such as ``[audit.call]``."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vol3d.errors import IncompleteError, RefusedError, RequirementError

# 200 characters with the "error: " that the command line puts before it.
MAX_LINE = 200 - len("error: ")


def one_line(code: str, text: str) -> str:
    r"""Return ``[code] text`` as one printable ASCII line of at most 200 characters.

    File names and config values come from strangers: control characters, which could move the cursor of a
    terminal or forge a second log line, are escaped.

    Example:
        >>> one_line("archive.path", "path must be plain, got 'a\nb'")
        "[archive.path] path must be plain, got 'a\\nb'"
    """
    safe = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in f"[{code}] {text}")
    return safe if len(safe) <= MAX_LINE else safe[: MAX_LINE - 3] + "..."


def shorten(value: object, limit: int = 60) -> str:
    """Return the ``repr`` of a stranger's value, cut so that the reason after it still fits on the line."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def refused(code: str, text: str) -> RefusedError:
    """Return the error for something that must not be trusted (exit code 3)."""
    return RefusedError(one_line(code, text))


def incomplete(code: str, text: str) -> IncompleteError:
    """Return the error for work that stopped part-way and can be resumed (exit code 4)."""
    return IncompleteError(one_line(code, text))


def lacking(code: str, text: str) -> RequirementError:
    """Return the error for something this machine lacks (exit code 5)."""
    return RequirementError(one_line(code, text))


@dataclass(frozen=True, order=True)
class Finding:
    """One reason against a bundle.

    Args:
        where: File, and inside a config the key path, for example ``configs/train.yaml: loss::_target_``.
        code: The rule, for example ``audit.call``; docs/sharing.md lists them.
        what: What was found.
        instead: What to write instead.
    """

    where: str
    code: str
    what: str
    instead: str

    def line(self) -> str:
        """Return the finding as the line of a refusal."""
        return one_line(self.code, f"{self.where}: {self.what}; {self.instead}")

    def as_dict(self) -> dict[str, str]:
        """Return the finding as plain JSON values."""
        return asdict(self)


def as_finding(error: RefusedError, where: str) -> Finding:
    """Turn a refusal into a finding, so that a check can go on and report all of them."""
    code, _, text = str(error).removeprefix("[").partition("] ")
    what, _, instead = text.removeprefix(f"{where} ").rpartition("; ")
    return Finding(where, code, what or text, instead or "correct it")


def refuse_findings(findings: list[Finding]) -> None:
    """Raise the first finding, if there is one, with the number of the others.

    Raises:
        RefusedError: If ``findings`` is not empty.
    """
    if findings:
        first = findings[0]
        others = f" (+{len(findings) - 1} more)" if len(findings) > 1 else ""
        raise refused(first.code, f"{first.where}{others}: {first.what}; {first.instead}")
