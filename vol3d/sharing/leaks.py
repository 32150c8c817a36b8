"""Finds what may point to a patient, a person or a site: paths, identifiers, names and dates of birth.

A pattern finds what has the shape of a leak; it cannot know every name. ``private_terms`` adds the site's own words.
"""

from __future__ import annotations

import getpass
import gzip
import re
import socket
import zlib
from typing import TYPE_CHECKING

from vol3d.errors import RefusedError
from vol3d.sharing.refusal import Finding
from vol3d.sharing.weights import check_checkpoint, check_safetensors, header_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MAX_TEXT_BYTES = 4 * 1024 * 1024
_HEADER_BYTES = 64 * 1024
# Accounts that say nothing about a person.
_GENERIC = frozenset(
    {"admin", "build", "data", "debian", "developer", "docker", "localhost", "model", "monai", "nobody", "root"}
    | {"runner", "server", "test", "torch", "train", "ubuntu", "user", "vol3d", "work", "workstation"}
)

_PATTERNS = (
    (
        "leak.path",
        "a path of one machine",
        re.compile(
            r"(?<![\w.:/])(?:/(?:home|Users|mnt|media|scratch|srv|root|nfs|gpfs|lustre|autofs|afs)/[\w.-]+"
            r"|[A-Za-z]:[\\/]+(?:Users|Documents and Settings)[\\/]+\w+|\\\\[\w.-]+\\\w+)"
        ),
    ),
    ("leak.uid", "a DICOM UID", re.compile(r"(?<![\d.])[12]\.\d{1,3}(?:\.\d+){6,}(?![\d.])")),
    ("leak.name", "a DICOM patient name", re.compile(r"\b[A-Za-z][\w'-]+\^[A-Za-z][\w'-]*")),
    (
        "leak.name",
        "a patient's name",
        re.compile(r"(?i)\b(?:patient'?s?[ _-]?name|\(?0010,\s?0010\)?)[\"']?\s*[:=]\s*[\"']?\w"),
    ),
    (
        "leak.birth",
        "a date of birth",
        re.compile(
            r"(?i)\b(?:patient'?s?[ _-]?)?(?:birth[ _-]?date|date[ _-]?of[ _-]?birth|dob|born|geburtsdatum"
            r"|né\(?e?\)? le)\b[^\w\n]{0,6}(?:on )?\d"
        ),
    ),
    (
        "leak.identifier",
        "a patient or study identifier",
        re.compile(
            r"(?i)\b(?:mrn|pat(?:ient)?[ _-]?id|medical[ _-]record[ _-](?:no|number)|accession(?:[ _-]?(?:no|number))?"
            r"|fallnummer|nhs[ _-]?(?:no|number)|ssn)\b[\"']?\s{0,2}[:=#]?\s{0,2}[\"']?[a-z]{0,4}-?\d{4,}"
        ),
    ),
    ("leak.identifier", "a social security number", re.compile(r"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)")),
)
# Where nobody writes prose, every absolute path is one of the machine that made the file.
_ANY_PATH = re.compile(r"(?<![\w.:/])(?:/[\w.-]+){3,}")


def scan_text(text: str, where: str, private_terms: Iterable[str] = (), *, is_prose: bool = True) -> list[Finding]:
    """Return the leaks in a text; a finding names the line and kind, never the leaked value itself.

    Args:
        text: What to scan.
        where: Path inside the bundle, for findings.
        private_terms: Words of this site that must not leave it, any case.
        is_prose: False for metadata that programs write, where any long absolute path counts.
    """
    found = []
    for code, what, pattern in _PATTERNS if is_prose else (*_PATTERNS, ("leak.path", "a path", _ANY_PATH)):
        match = pattern.search(text)
        if match:
            found.append((code, what, match.start()))
    lowered = text.lower()
    for term in private_terms:
        match = re.search(rf"(?<!\w){re.escape(term.lower())}(?!\w)", lowered)
        if match:
            found.append(("leak.term", "a private term of this site", match.start()))
    return [
        Finding(f"{where} line {text.count(chr(10), 0, start) + 1}", code, what, "remove it or write a placeholder")
        for code, what, start in found
    ]


def scan_file(path: Path, where: str, private_terms: Iterable[str] = ()) -> list[Finding]:
    """Return the leaks in one file of a bundle: text, checkpoint, safetensors or NIfTI."""
    terms = tuple(private_terms)
    name = path.name.lower()
    try:
        if name.endswith(".pt"):
            return scan_text("\n".join(check_checkpoint(path, where)), where, terms, is_prose=False)
        if name.endswith(".safetensors"):
            return scan_text(header_texts(check_safetensors(path, where)), where, terms, is_prose=False)
    except RefusedError:
        return []  # the weights check reports it
    if name.endswith((".nii", ".nii.gz")):
        return list(_scan_nifti(path, where, terms))
    with path.open("rb") as stream:
        return scan_text(stream.read(MAX_TEXT_BYTES).decode("utf-8", "replace"), where, terms)


def machine_terms() -> set[str]:
    """Return this account's and this machine's name, unless they say nothing about a person or site."""
    names = {socket.gethostname().partition(".")[0]}
    try:
        names.add(getpass.getuser())
    except (OSError, KeyError):
        names.discard("")  # an account without a name, as in some containers
    return {name for name in names if len(name) >= 4 and name.lower() not in _GENERIC}


def _scan_nifti(path: Path, where: str, terms: tuple[str, ...]) -> Iterator[Finding]:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return
    if len(header) < 352:
        return
    # db_name, descrip, aux_file and intent_name, then the extensions up to vox_offset (NIfTI-1, section 2).
    fields = [header[14:32], header[148:228], header[228:252], header[328:344], header[352:]]
    text = "\n".join(field.split(b"\0")[0].decode("latin-1") for field in fields[:4])
    yield from scan_text(text, where, terms, is_prose=False)
    if header[348] and int.from_bytes(header[356:360], "little") == 2:
        yield Finding(where, "leak.dicom", "a NIfTI extension with a DICOM header", "remove the extension")
    elif header[348]:
        yield from scan_text(fields[4].decode("latin-1"), where, terms, is_prose=False)
