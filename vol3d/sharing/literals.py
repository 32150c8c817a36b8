"""Rules for the plain values of a config: text anywhere, and arguments that the policy rules by name."""

from __future__ import annotations

import re
from typing import Any

from vol3d.sharing.refusal import shorten

Problem = tuple[str, str, str]
"""Code, what was found, and what to write instead."""

# A reference, or a reference joined with literal text: "@output_dir", "$@bundle_root + '/eval'".
_BUILT_PATH = re.compile(r"""\$?\s*@(?P<id>\w+)(?:\s*\+\s*(?P<quote>['"])(?P<tail>[\w./-]+)(?P=quote))?""")
_PLAIN_PATH = re.compile(r"[\w./-]+")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def path_problem(value: str) -> str | None:
    """Say why ``value`` would lead outside the bundle if it were used as a path, or return None."""
    if value.startswith(("/", "~", "\\")) or _DRIVE.match(value):
        return "an absolute path"
    if ".." in re.split(r"[\\/]", value):
        return "a step to a parent folder"
    if _URL.search(value):
        return "a network address"
    return None


def text_problem(value: str) -> Problem | None:
    """Return the reason against a text that stands anywhere in a config, or None."""
    if "\0" in value:
        return "audit.text", "a NUL character", "remove it"
    if "__" in value:
        return "audit.text", f"a double underscore in {shorten(value)}", "write a name without it"
    why = path_problem(value)
    if why:
        return "audit.path", f"{why}: {shorten(value)}", "write a path inside the bundle; users pass theirs as options"
    return None


def argument_problem(name: str, value: Any, rule: dict[str, Any]) -> Problem | None:
    """Return the reason against ``name: value`` under the policy's rule for that name, or None.

    Args:
        name: Argument name.
        value: Its literal value; ``...`` stands for a value that is computed.
        rule: ``must_be``, ``one_of``, ``component``, ``absent`` or ``inside``.
    """
    found = f"{name} = {shorten(value)}" if value is not ... else f"a computed {name}"
    hint = None
    if rule.get("absent"):
        hint = "remove it"
    elif "must_be" in rule and value is not rule["must_be"]:
        hint = f"write {str(rule['must_be']).lower()}"
    elif "one_of" in rule and value not in rule["one_of"]:
        hint = "write " + ", ".join(str(v) for v in rule["one_of"] if v is not None)
    elif "component" in rule and not (isinstance(value, dict) and value.get("_target_") in rule["component"]):
        hint = "write a mapping with `_target_: " + " or ".join(rule["component"]) + "`"
    elif "inside" in rule and not _is_inside(value, rule["roots"]):
        return "audit.path", found, "write $@bundle_root + '/name' or $@output_dir + '/name'"
    return ("audit.argument", found, hint) if hint else None


def _is_inside(value: Any, roots: list[str]) -> bool:
    if value is None:
        return True
    if not isinstance(value, str):
        return False
    built = _BUILT_PATH.fullmatch(value)
    if built:
        return built["id"] in roots and ".." not in (built["tail"] or "").split("/")
    return _PLAIN_PATH.fullmatch(value) is not None and path_problem(value) is None
