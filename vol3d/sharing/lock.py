"""The lock ``vol3d.lock.json``: what a packed bundle consists of.

Laws: ``parse_lock(lock.to_bytes()) == lock``, and ``parse_lock`` accepts exactly the bytes that ``to_bytes`` writes, so
that two programs can never read one lock differently. The lock id is the SHA-256 of these bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from vol3d.sharing.contents import MAX_FILE_BYTES, REQUIRED, SCRIPT_KINDS, check_paths, kind_of
from vol3d.sharing.refusal import refused, shorten
from vol3d.sharing.strict_documents import MAX_JSON_BYTES, parse_json

FORMAT = "vol3d-lock/1"
MAX_LOCK_BYTES = MAX_JSON_BYTES
NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
VERSION = re.compile(r"(?:0|[1-9]\d{0,5})(?:\.(?:0|[1-9]\d{0,5})){1,3}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class LockedFile:
    """One file of a packed bundle.

    Args:
        path: Inside the bundle, with ``/``.
        size: In bytes.
        sha256: Of the content, 64 hexadecimal digits.
        kind: See :mod:`vol3d.sharing.contents`.
    """

    path: str
    size: int
    sha256: str
    kind: str


@dataclass(frozen=True)
class Lock:
    """Everything a reviewer needs to know about a packed bundle; all of it is signed.

    Args:
        name: Bundle name, lower case.
        version: For example ``1.2.0``.
        files: Sorted by path.
        environment: Package to version that the bundle was made for.
        licence: SPDX text of the metadata.
        card: First heading of the model card.
        provenance: What made it: program, source revision, weights' origin.
        audit: Policy's SHA-256 and result.
        probe: Seeded input and expected output of the network, or None for a bundle without weights.
    """

    name: str
    version: str
    files: tuple[LockedFile, ...]
    environment: dict[str, str]
    licence: str
    card: str
    provenance: dict[str, str]
    audit: dict[str, Any]
    probe: dict[str, Any] | None

    @property
    def has_scripts(self) -> bool:
        """Tell whether the bundle brings its own code."""
        return any(file.kind in SCRIPT_KINDS for file in self.files)

    @property
    def title(self) -> str:
        """Return ``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    @property
    def id(self) -> str:
        """Return the lock id."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the one way to write this lock; its checksum finds a changed byte even where nobody signed."""
        content = {"format": FORMAT} | asdict(self)
        return _write(content | {"checksum": hashlib.sha256(_write(content)).hexdigest()})


def _write(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def version_key(version: str) -> tuple[int, ...]:
    """Return a key that orders versions; trailing zeros do not count."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def parse_lock(data: bytes) -> Lock:
    """Return the lock that ``data`` spells.

    Raises:
        RefusedError: If ``data`` is not exactly what :meth:`Lock.to_bytes` writes for a valid lock.
    """
    if len(data) > MAX_LOCK_BYTES:
        raise refused("lock.size", f"lock must have at most {MAX_LOCK_BYTES} bytes, got {len(data)}; pack it again")
    raw = parse_json(data, "lock")
    fields = set(Lock.__dataclass_fields__) | {"format", "checksum"}
    if not isinstance(raw, dict) or set(raw) != fields:
        got = shorten(sorted(set(raw) ^ fields)) if isinstance(raw, dict) else type(raw).__name__
        raise refused(
            "lock.fields", f"lock must have its {len(fields)} fields, got a difference in {got}; pack it again"
        )
    if raw["format"] != FORMAT:
        raise refused("lock.format", f"format must be {FORMAT}, got {shorten(raw['format'])}; use a matching vol3d")
    files = _parse_files(raw["files"])
    _check_texts(raw)
    lock = Lock(**{k: v for k, v in raw.items() if k not in ("format", "checksum", "files")}, files=files)
    if lock.to_bytes() != data:
        raise refused("lock.canonical", "lock must be written as vol3d writes it, got other bytes; get it again")
    return lock


def _parse_files(raw: Any) -> tuple[LockedFile, ...]:
    fields = set(LockedFile.__dataclass_fields__)
    if not isinstance(raw, list) or not all(isinstance(f, dict) and set(f) == fields for f in raw):
        raise refused("lock.files", "files must be a list of path, size, sha256 and kind, got another; pack it again")
    for entry in raw:
        path, size, digest = entry["path"], entry["size"], entry["sha256"]
        if not isinstance(path, str) or kind_of(path) is None or entry["kind"] != kind_of(path):
            raise refused("lock.kind", f"files must be of a kind that travels, got {shorten(path)}; pack it again")
        if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
            raise refused("lock.file-size", f"size of {path} must be 0..{MAX_FILE_BYTES}, got {shorten(size)}")
        if not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise refused("lock.sha256", f"sha256 of {path} must be 64 hex digits, got {shorten(digest)}")
    files = tuple(LockedFile(**entry) for entry in raw)
    paths = [file.path for file in files]
    check_paths(paths)
    if paths != sorted(paths):
        raise refused("lock.order", "files must be sorted by path, got another order; pack it again")
    missing = [path for path in REQUIRED if path not in paths]
    if missing:
        raise refused("lock.missing", f"bundle must have {', '.join(REQUIRED)}, got none of {', '.join(missing)}")
    return files


def _check_texts(raw: dict[str, Any]) -> None:
    if not isinstance(raw["name"], str) or not NAME.fullmatch(raw["name"]):
        raise refused("lock.name", f"name must be lower-case letters, digits and _, got {shorten(raw['name'])}")
    if not isinstance(raw["version"], str) or not VERSION.fullmatch(raw["version"]):
        raise refused("lock.version", f"version must look like 1.2.0, got {shorten(raw['version'])}")
    for key in ("licence", "card"):
        if not isinstance(raw[key], str) or len(raw[key]) > 200:
            raise refused("lock.text", f"{key} must be text of at most 200 characters, got {shorten(raw[key])}")
    for key in ("environment", "provenance"):
        if not isinstance(raw[key], dict) or not all(isinstance(v, str) and len(v) <= 200 for v in raw[key].values()):
            raise refused("lock.text", f"{key} must map names to short texts, got {shorten(raw[key])}")
    if not isinstance(raw["audit"], dict) or not isinstance(raw["probe"], dict | None):
        raise refused("lock.text", "audit and probe must be mappings, got another type; pack it again")
