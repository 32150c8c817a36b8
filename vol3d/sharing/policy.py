"""The audit's policy file: what a bundle config may name.

``policy.yaml`` beside this module is the whole policy; this module reads it and answers questions about names. Names
are looked up in the *source files* of the packages, which are never imported: a name is allowed only where its own
package defines it with ``def`` or ``class``, so a step through one module into another (``monai.utils.os``) has
nothing to stand on.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vol3d.sharing.refusal import lacking
from vol3d.sharing.strict_documents import parse_yaml

POLICY_FILE = Path(__file__).with_name("policy.yaml")
_DEFINITION = re.compile(r"^(?:class|def)\s+([A-Za-z]\w*)", re.MULTILINE)
_ALIASES = {"np": "numpy"}
_SCANNED = ("monai", "vol3d")


@dataclass(frozen=True)
class Policy:
    """The reviewed policy, ready to answer.

    Args:
        packages: Per package whose own definitions are allowed: ``names`` and ``except``.
        targets: Full names that ``_target_`` may hold besides.
        calls: Full names that an expression may call.
        values: Full names that an expression may mention.
        builtins: Python built-ins that an expression may call.
        methods: Methods that an expression may call on a value.
        attributes: Attributes that an expression may read from a value.
        imports: Packages that ``$import`` may name.
        path_roots: Keys that a path built by an expression may start at.
        arguments: Rule of each ruled argument name.
        sha256: Of the policy file; locks record it.
    """

    packages: dict[str, dict[str, Any]]
    targets: frozenset[str]
    calls: frozenset[str]
    values: frozenset[str]
    builtins: frozenset[str]
    methods: frozenset[str]
    attributes: frozenset[str]
    imports: frozenset[str]
    path_roots: frozenset[str]
    arguments: dict[str, dict[str, Any]] = field(repr=False)
    sha256: str

    def allows_target(self, name: str) -> bool:
        """Tell whether ``_target_: name`` is allowed; a name without a dot is looked up in MONAI, as MONAI does."""
        return name in self.targets or self._allows_definition(name)

    def allows_call(self, name: str) -> bool:
        """Tell whether an expression may call ``name``, a full dotted name or a built-in."""
        full = expand_alias(name)
        if full in self.calls or full in self.builtins:
            return True
        return full.startswith("vol3d.") and self._allows_definition(full)

    def allows_value(self, name: str) -> bool:
        """Tell whether an expression may mention ``name`` without calling it."""
        full = expand_alias(name)
        if full in self.values or full in self.builtins:
            return True
        # An enumeration is listed by its name and read one step deeper: monai.utils.ForwardMode.TRAIN.
        parent, _, last = full.rpartition(".")
        if parent in self.values and last.isupper() and not last.startswith("_"):
            return True
        return full.startswith("vol3d.") and self._allows_definition(full)

    def _allows_definition(self, name: str) -> bool:
        package, _, last = name.rpartition(".")
        root = package.partition(".")[0] or "monai"
        if root not in _SCANNED:
            return False
        modules = definitions(root).get(last, ())
        if package:
            # Either the defining file itself, or the package that gathers it (monai.transforms.Compose).
            modules = tuple(
                m for m in modules if m == package or (package in self.packages and m.startswith(f"{package}."))
            )
        # A bare name could mean any of its definitions: every one of them has to be allowed.
        return bool(modules) and all(self._allows_in_module(last, module) for module in modules)

    def _allows_in_module(self, name: str, module: str) -> bool:
        parents = [p for p in self.packages if module == p or module.startswith(p + ".")]
        if not parents:
            return False
        rule = self.packages[max(parents, key=len)]
        if name in rule.get("except", ()):
            return False
        if rule["names"] == "public":
            return True
        return name[0].isupper() if rule["names"] == "classes" else name in rule["names"]


def expand_alias(name: str) -> str:
    """Return the full name of ``np.x``; other names come back as they are."""
    root, dot, rest = name.partition(".")
    return _ALIASES.get(root, root) + dot + rest


@cache
def definitions(package: str) -> dict[str, tuple[str, ...]]:
    """Map each top-level class and function of an installed package to the modules whose source defines it.

    Raises:
        RequirementError: If the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.origin:
        raise lacking("policy.package", f"{package} must be installed, got no such package; install it")
    root = Path(spec.origin).parent
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for name in _DEFINITION.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, []).append(module)
    return {name: tuple(dict.fromkeys(modules)) for name, modules in found.items()}


@cache
def load_policy() -> Policy:
    """Return the policy that comes with this version of vol3d."""
    data = POLICY_FILE.read_bytes()
    raw = parse_yaml(data, POLICY_FILE.name)
    # The rule "inside" judges paths and so needs the roots at hand.
    rules = {name: rule | {"roots": raw["path_roots"]} for rule in raw["arguments"] for name in rule["names"]}
    return Policy(
        packages=raw["packages"],
        targets=_expand(raw["targets"]),
        calls=_expand(raw["calls"]),
        values=_expand(raw["values"]),
        builtins=frozenset(raw["builtins"]),
        methods=frozenset(raw["methods"]),
        attributes=frozenset(raw["attributes"]),
        imports=frozenset(raw["imports"]),
        path_roots=frozenset(raw["path_roots"]),
        arguments=rules,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _expand(names: list[str]) -> frozenset[str]:
    """Turn ``a.{b,c}`` into ``a.b`` and ``a.c``."""
    result = set()
    for name in names:
        stem, brace, rest = name.partition("{")
        result |= {stem + part for part in rest.rstrip("}").split(",")} if brace else {name}
    return frozenset(result)
