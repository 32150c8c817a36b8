"""Which files of a bundle folder travel, and as what kind.

============  ==========================================  ===========================================================
kind          path                                        note
============  ==========================================  ===========================================================
licence       ``LICENSE``                                 required
metadata      ``configs/metadata.json``                   required
config        ``configs/*.{json,yaml,yml}``               audited
card          ``docs/README.md``                          required
doc           ``docs/*.{md,txt}``, ``docs/golden.json``   scanned for leaks
weights       ``models/*.safetensors``                    made from ``models/*.pt`` when the bundle is packed
script        ``scripts/**/*.py``                         only at level scripts
torchscript   ``models/*.ts``                             only at level scripts
============  ==========================================  ===========================================================

Hidden files, caches, logs and folders outside the five are left out. Anything else inside these folders is refused, so
that nothing the bundle may need is dropped in silence.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vol3d.sharing.refusal import Finding, refused, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILES = 2000
MAX_DEPTH = 5
# The size field of a tar header has eleven octal digits.
MAX_FILE_BYTES = 8**11 - 1

LOCK_NAME = "vol3d.lock.json"
SIGNATURE_NAME = "vol3d.lock.sig"
CARD = "docs/README.md"
LICENCE = "LICENSE"
METADATA = "configs/metadata.json"
REQUIRED = (LICENCE, METADATA, CARD)
SCRIPT_KINDS = frozenset({"script", "torchscript"})

_KINDS = (
    ("licence", re.compile(r"LICENSE")),
    ("metadata", re.compile(r"configs/metadata\.json")),
    ("config", re.compile(r"configs/[\w.-]+\.(?:json|yaml|yml)")),
    ("card", re.compile(r"docs/README\.md")),
    ("doc", re.compile(r"docs/(?:[\w.-]+\.(?:md|txt)|golden\.json)")),
    ("weights", re.compile(r"models/[\w.-]+\.safetensors")),
    ("script", re.compile(r"scripts/(?:[\w-]+/)*[\w-]+\.py")),
    ("torchscript", re.compile(r"models/[\w.-]+\.ts")),
)
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_WINDOWS_NAMES = frozenset({"con", "prn", "aux", "nul"} | {f"{n}{i}" for n in ("com", "lpt") for i in range(10)})
_TRAVELLING = frozenset({"configs", "docs", "models", "scripts"})
_LEFT_OUT = re.compile(r"(?:__pycache__|.*\.(?:log|pyc|tmp|part))")


def check_path(path: str) -> None:
    """Accept only paths that mean the same file on every system.

    Raises:
        RefusedError: If ``path`` is longer than 100 characters or 6 steps, hidden, absolute, has a step such as ``..``
            or characters beside letters, digits and ``_ . -``, or a name that Windows reserves.
    """
    steps = path.split("/")
    plain = len(path) <= 100 and len(steps) <= 6 and all(_SEGMENT.fullmatch(s) and s[-1] != "." for s in steps)
    if not plain or any(s.partition(".")[0].lower() in _WINDOWS_NAMES for s in steps):
        raise refused("path.name", f"path must be short and plain, got {shorten(path)}; rename the file")


def check_paths(paths: list[str]) -> None:
    """Accept a list of paths that can stand side by side on every system.

    Raises:
        RefusedError: If a path is not plain, two differ only in case, one is a folder of another, or there are more
            than 2,000.
    """
    if len(paths) > MAX_FILES:
        raise refused("path.count", f"bundle must have at most {MAX_FILES} files, got {len(paths)}; remove some")
    seen: set[str] = set()
    for path in paths:
        check_path(path)
        folded = path.lower()
        if folded in seen:
            raise refused("path.clash", f"paths must differ in more than case, got {shorten(path)} twice; rename it")
        seen.add(folded)
    for path in seen:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in seen:
                raise refused("path.clash", f"{shorten(path)} must not lie below a file; rename one of them")


def kind_of(path: str) -> str | None:
    """Return the kind of a file by its path inside the bundle, or None if such a file never travels."""
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(path)), None)


@dataclass(frozen=True)
class Contents:
    """What a bundle folder holds.

    Args:
        files: Path inside the bundle to kind, sorted; checkpoints (``models/*.pt``) have the kind ``checkpoint``.
        left_out: Paths that stay behind.
        findings: What speaks against the folder.
    """

    files: dict[str, str]
    left_out: tuple[str, ...]
    findings: tuple[Finding, ...]


def survey(root: Path) -> Contents:
    """Sort the files of a bundle folder; links are refused, nothing is opened.

    Raises:
        RefusedError: If there are more than 2,000 files in the folders that travel.
    """
    files: dict[str, str] = {}
    left_out: list[str] = []
    findings: list[Finding] = []
    for name in _walk(root, root, left_out, findings):
        kind = "checkpoint" if re.fullmatch(r"models/[\w.-]+\.pt", name) else kind_of(name)
        if name in (LOCK_NAME, SIGNATURE_NAME):
            continue
        if kind:
            files[name] = kind
        elif name.partition("/")[0] in _TRAVELLING:
            hint = "remove it, or move it out of the folder"
            findings.append(Finding(name, "layout.kind", "a file of a kind that never travels", hint))
        else:
            left_out.append(name)
    check_paths(list(files))
    findings += [Finding(name, "layout.missing", "no such file", "add it") for name in REQUIRED if name not in files]
    if not any(kind == "config" for kind in files.values()):
        findings.append(Finding("configs", "layout.missing", "no config", "add inference.yaml"))
    return Contents(dict(sorted(files.items())), tuple(sorted(left_out)), tuple(sorted(findings)))


def _walk(folder: Path, root: Path, left_out: list[str], findings: list[Finding]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            path = Path(entry.path).relative_to(root).as_posix()
            if entry.is_symlink():
                findings.append(Finding(path[:80], "layout.link", "a link", "replace it by the file itself"))
            elif entry.name.startswith(".") or _LEFT_OUT.fullmatch(entry.name):
                left_out.append(path)
            elif entry.is_dir() and path.count("/") >= MAX_DEPTH:
                findings.append(Finding(path[:80], "layout.depth", "too many folders in folders", "flatten it"))
            elif entry.is_dir():
                if path.partition("/")[0] in _TRAVELLING:
                    yield from _walk(Path(entry.path), root, left_out, findings)
                else:
                    left_out.append(path)
            elif entry.is_file():
                yield path
            else:
                findings.append(Finding(path[:80], "layout.special", "not a regular file", "remove it"))
