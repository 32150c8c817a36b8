"""Everything that can be said against a bundle folder without running any of its code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vol3d.errors import RefusedError, UsageError
from vol3d.sharing.audit import audit_bundle
from vol3d.sharing.contents import CARD, LICENCE, METADATA, SCRIPT_KINDS, Contents, survey
from vol3d.sharing.leaks import MAX_TEXT_BYTES, machine_terms, scan_file
from vol3d.sharing.lock import NAME, VERSION
from vol3d.sharing.refusal import Finding, as_finding
from vol3d.sharing.strict_documents import read_document
from vol3d.sharing.weights import check_checkpoint, check_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Checked:
    """The outcome of a check.

    Args:
        contents: What travels and what stays behind.
        findings: What speaks against the bundle, sorted by place.
        level: ``data-only``, or ``scripts`` if the bundle may bring code.
    """

    contents: Contents
    findings: list[Finding]
    level: str


def check_bundle(root: Path, level: str = "data-only", private_terms: Iterable[str] = ()) -> Checked:
    """Check layout, configs, weights, licence, card and leaks of a bundle folder; nothing of it is run.

    Args:
        root: The bundle folder.
        level: ``data-only``, or ``scripts``: then own code is allowed, and the audit, which says nothing about code, is
            left out.
        private_terms: Words of this site that must not leave it; account and machine name are added.

    Raises:
        UsageError: If the level is another one.
        RefusedError: If the folder has too many files.
    """
    if level not in ("data-only", "scripts"):
        raise UsageError(f"level of a check must be data-only or scripts, got {level!r}; choose one of them")
    contents = survey(root)
    findings = list(contents.findings)
    if level != "scripts":
        hint = "move the code into a package, or pack with --level scripts"
        scripts = [path for path, kind in contents.files.items() if kind in SCRIPT_KINDS]
        findings += [Finding(path, "layout.script", "own code", hint) for path in scripts]
        findings += audit_bundle(root)
    terms = machine_terms() | set(private_terms)
    for path, kind in contents.files.items():
        findings += _check_weights(root / path, path, kind)
        if kind not in ("weights", "checkpoint", "torchscript") and (root / path).stat().st_size > MAX_TEXT_BYTES:
            findings.append(Finding(path, "layout.size", "a text larger than is scanned for leaks", "shorten it"))
        findings += scan_file(root / path, path, terms)
    for finding in contents.findings:
        # A file that cannot travel may still tell what it would have given away.
        if finding.code == "layout.kind":
            findings += scan_file(root / finding.where, finding.where, terms)
    if not any(f.where in (LICENCE, METADATA, CARD) for f in contents.findings):
        findings += [*_check_texts(root), *_check_metadata(root)]
    return Checked(contents, sorted(set(findings)), level)


def read_metadata(root: Path) -> dict[str, Any]:
    """Return the metadata, which has to be a mapping.

    Raises:
        RefusedError: If it is not strict JSON or no mapping.
    """
    content = read_document(root / METADATA, METADATA)
    return content if isinstance(content, dict) else {}


def card_title(root: Path) -> str:
    """Return the first heading of the model card, or an empty text."""
    with (root / CARD).open(encoding="utf-8", errors="replace") as stream:
        return next((line.lstrip("# ").strip()[:200] for line in stream if line.startswith("#")), "")


def licence_name(root: Path) -> str:
    """Return the first line of the licence file that is not blank, or an empty text."""
    with (root / LICENCE).open(encoding="utf-8", errors="replace") as stream:
        return next((line.strip()[:200] for line in stream if line.strip()), "")


def _check_weights(path: Path, where: str, kind: str) -> list[Finding]:
    try:
        if kind == "weights":
            check_safetensors(path, where)
        elif kind == "checkpoint":
            check_checkpoint(path, where)
    except RefusedError as error:
        return [as_finding(error, where)]
    return []


def _check_texts(root: Path) -> list[Finding]:
    findings = []
    if not licence_name(root):
        findings.append(Finding(LICENCE, "licence.empty", "an empty licence", "write the licence of the weights"))
    if not card_title(root):
        findings.append(Finding(CARD, "card.empty", "a card without a heading", "say what the model is for"))
    return findings


def _check_metadata(root: Path) -> list[Finding]:
    try:
        metadata = read_metadata(root)
    except RefusedError:
        return []  # the audit reports it
    findings = []
    version = metadata.get("version")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        got = f"version {json.dumps(version)[:40]}"
        findings.append(Finding(METADATA, "metadata.version", got, "write a version such as 1.2.0"))
    if not NAME.fullmatch(root.name):
        findings.append(Finding(METADATA, "metadata.name", f"folder {root.name[:40]!r}", "use a-z, 0-9 and _ only"))
    findings += [
        Finding(METADATA, "metadata.missing", f"no {key}", "add it")
        for key in ("monai_version", "pytorch_version", "description", "intended_use", "copyright")
        if not isinstance(metadata.get(key), str)
    ]
    return findings
