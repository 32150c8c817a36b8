"""Reads the configs of a bundle and refuses what could run foreign code; evaluates and imports nothing.

Every text in every config is judged by the same rules wherever it stands, because overlays, macros and ``a::b`` keys
can move it to any place. A text is an expression (``$``), a macro (``%``), a component's name (under ``_target_``) or
plain; arguments that the policy rules by name are judged by name, whichever component they belong to.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vol3d.errors import RefusedError
from vol3d.sharing.expressions import expression_problems
from vol3d.sharing.literals import argument_problem, text_problem
from vol3d.sharing.policy import load_policy
from vol3d.sharing.refusal import Finding, as_finding
from vol3d.sharing.strict_documents import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vol3d.sharing.literals import Problem
    from vol3d.sharing.policy import Policy

CONFIG_SUFFIXES = (".json", ".yaml", ".yml")
METADATA = "configs/metadata.json"
MAX_NODES = 50_000

_KEY = re.compile(r"[+~]?[\w.:#-]+")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_TARGET = re.compile(r"[A-Za-z]\w*(?:\.[A-Za-z]\w*)*")
_MACRO = re.compile(r"%(?P<file>[\w./-]+\.(?:json|yaml|yml))?(?:::|#)*[\w:#]*")
# What stands after the last dot of a file name, not of a Python name.
_FILE_SUFFIX = re.compile(
    r"\.(?:csv|gz|html|json|md|mha|nii|npz|nrrd|onnx|pt|safetensors|tsv|txt|xml|ya?ml)$", re.IGNORECASE
)


def audit_bundle(root: Path) -> list[Finding]:
    """Return what speaks against the configs of the bundle in ``root``, sorted by place; empty means it passes."""
    configs = sorted(p for p in (root / "configs").rglob("*") if p.suffix in CONFIG_SUFFIXES and p.is_file())
    names = frozenset(p.relative_to(root).as_posix() for p in configs)
    findings: list[Finding] = []
    for path in configs:
        where = path.relative_to(root).as_posix()
        try:
            content = read_document(path, where)
        except RefusedError as error:
            findings.append(as_finding(error, where))
            continue
        findings += audit_config(content, where, names)
    return sorted(set(findings))


def audit_config(content: Any, where: str, config_files: frozenset[str] = frozenset()) -> list[Finding]:
    """Return what speaks against one config.

    Args:
        content: The config as plain values.
        where: Its path inside the bundle, for findings.
        config_files: Paths of all configs of the bundle: the only files that a macro may name.
    """
    if not isinstance(content, dict):
        return [Finding(where, "audit.shape", "a config that is not a mapping", "write `key: value` lines")]
    walk = _Walk(load_policy(), where, config_files)
    return sorted(set(walk.metadata(content, ()) if where == METADATA else walk.config(content, ())))


class _Walk:
    """One pass over one config."""

    def __init__(self, policy: Policy, where: str, config_files: frozenset[str]) -> None:
        self.policy = policy
        self.where = where
        self.config_files = config_files
        self.nodes = 0

    def finding(self, path: tuple[str, ...], problem: Problem) -> Finding:
        place = f"{self.where}: {'::'.join(path)}" if path else self.where
        return Finding(place if len(place) <= 90 else place[:87] + "...", *problem)

    def metadata(self, value: Any, path: tuple[str, ...]) -> Iterator[Finding]:
        """MONAI parses metadata.json together with the configs: no text in it may look like one of theirs."""
        if isinstance(value, dict):
            for key, item in ((str(k), v) for k, v in value.items()):
                if key.startswith("_") or "@" in key or "$" in key:
                    yield self.finding(path, ("audit.metadata", f"the key {key[:40]!r}", "use a plain key"))
                yield from self.metadata(item, (*path, key))
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from self.metadata(item, (*path, str(number)))
        elif isinstance(value, str) and value.startswith(("$", "@", "%")):
            yield self.finding(path, ("audit.metadata", "text that starts with $, @ or %", "write plain text"))

    def config(self, value: Any, path: tuple[str, ...]) -> Iterator[Finding]:
        self.nodes += 1
        if self.nodes == MAX_NODES:
            yield self.finding((), ("audit.shape", f"more than {MAX_NODES} values", "split the config"))
        if self.nodes >= MAX_NODES:
            return
        if isinstance(value, dict):
            for key, item in value.items():
                yield from self._pair(str(key), item, (*path, str(key)))
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from self.config(item, (*path, str(number)))
        elif isinstance(value, str):
            yield from self._text(value, path)

    def _pair(self, key: str, value: Any, path: tuple[str, ...]) -> Iterator[Finding]:
        if not _KEY.fullmatch(key):
            yield self.finding(path, ("audit.key", f"the key {key[:40]!r}", "use letters, digits, _ and ::"))
        # An overlay may say `evaluator::_target_: ...`: the last step is what the value is for.
        name = re.split(r"::|#", key.lstrip("+~"))[-1]
        if name == "_target_":
            yield from self._target(value, path)
            return
        if name == "_desc_" and isinstance(value, str) and not value.startswith(("$", "@", "%")):
            return
        rule = self.policy.arguments.get(name)
        if rule is not None:
            ruled = argument_problem(name, value, rule)
            if ruled:
                yield self.finding(path, ruled)
        yield from self.config(value, path)

    def _target(self, value: Any, path: tuple[str, ...]) -> Iterator[Finding]:
        if not isinstance(value, str) or not _TARGET.fullmatch(value):
            yield self.finding(path, ("audit.target", f"_target_ {str(value)[:60]!r}", "write the name of a component"))
        elif not self.policy.allows_target(value):
            hint = "use a listed component (docs/sharing.md)"
            yield self.finding(path, ("audit.target", f"the component {value[:60]!r}", hint))

    def _text(self, value: str, path: tuple[str, ...]) -> Iterator[Finding]:
        if value.startswith("$"):
            for problem in expression_problems(value[1:], self.policy):
                yield self.finding(path, problem)
        elif value.startswith("%"):
            yield from self._macro(value, path)
        else:
            plain = text_problem(value) or self._name_problem(value)
            if plain:
                yield self.finding(path, plain)

    def _name_problem(self, value: str) -> Problem | None:
        # Some classes import what a text names (`backbone: os.system`).
        if not _DOTTED.fullmatch(value) or _FILE_SUFFIX.search(value):
            return None
        if self.policy.allows_target(value) or self.policy.allows_value(value):
            return None
        return "audit.name", f"the Python name {value[:60]!r}", "use a listed name, or text without dots"

    def _macro(self, value: str, path: tuple[str, ...]) -> Iterator[Finding]:
        match = _MACRO.fullmatch(value)
        file = match["file"] if match else None
        if match and (file is None or PurePosixPath(file).as_posix() in self.config_files):
            return
        hint = "name a key of this config, or a config of this bundle"
        yield self.finding(path, ("audit.macro", f"the macro {value[:60]!r}", hint))
