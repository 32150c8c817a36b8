"""What changed between two versions of a bundle, in words that a reviewer can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vol3d.errors import RefusedError
from vol3d.sharing.refusal import shorten
from vol3d.sharing.strict_documents import parse_json, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from vol3d.sharing.lock import Lock, LockedFile

    ReadFile: TypeAlias = Callable[[LockedFile], bytes]

_MEANING = {
    "config": "changes what is run",
    "metadata": "changes what is declared",
    "weights": "other weights: its scores have to be measured again",
    "script": "OWN CODE: read it",
    "torchscript": "OWN CODE: it cannot be read",
    "licence": "other terms of use",
}


def describe_difference(old: Lock, read_old: ReadFile, new: Lock, read_new: ReadFile) -> list[str]:
    """Return one line per change, from ``old`` to ``new``.

    Args:
        old: Lock of the first bundle.
        read_old: Returns the verified content of one of its files.
        new: Lock of the second bundle.
        read_new: Returns the verified content of one of its files.
    """
    lines = [f"{old.title} -> {new.title}"]
    for field in ("licence", "card", "environment", "provenance", "audit"):
        lines += list(_changes(field, getattr(old, field), getattr(new, field)))
    if old.probe != new.probe:
        lines.append("probe: the network gives another output for the same input")
    before, after = {f.path: f for f in old.files}, {f.path: f for f in new.files}
    for path in sorted(before.keys() | after.keys()):
        if path not in before or path not in after:
            file = after.get(path) or before[path]
            verb = "added" if path in after else "removed"
            lines.append(f"{path}: {verb} ({file.size} bytes){_meaning(file.kind)}")
        elif before[path].sha256 != after[path].sha256:
            sizes = f"{before[path].size} -> {after[path].size} bytes"
            lines.append(f"{path}: changed ({sizes}){_meaning(after[path].kind)}")
            if after[path].kind in ("config", "metadata"):
                lines += _config_changes(path, read_old(before[path]), read_new(after[path]))
    return lines if len(lines) > 1 else [*lines, "no difference"]


def _meaning(kind: str) -> str:
    return f"; {_MEANING[kind]}" if kind in _MEANING else ""


def _config_changes(path: str, old: bytes, new: bytes) -> list[str]:
    parse = parse_json if path.endswith(".json") else parse_yaml
    try:
        return [f"  {line}" for line in _changes("", parse(old, path), parse(new, path))]
    except RefusedError as error:
        return [f"  {error}"]


def _changes(place: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys(), key=str):
            below = f"{place}::{key}" if place else str(key)
            if key not in old:
                yield f"{below}: added {shorten(new[key])}"
            elif key not in new:
                yield f"{below}: removed {shorten(old[key])}"
            else:
                yield from _changes(below, old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and _has_parts(old):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(f"{place}::{number}", one, other)
    elif old != new or type(old) is not type(new):
        yield f"{place}: {shorten(old)} -> {shorten(new)}"


def _has_parts(values: list[Any]) -> bool:
    return any(isinstance(value, dict | list) for value in values)
