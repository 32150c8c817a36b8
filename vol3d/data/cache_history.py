"""Why a case hit or missed: compare what is asked for with the records of what was computed before.

Every entry of the case cache records the canonical form of its transforms, the versions of the libraries, and digests
of its inputs' contents and paths. An entry is *related* to a request if an input has the same content or the same path.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vol3d.data.cache_entries import list_entries
from vol3d.data.cache_file import CacheFileError, read_cache_record
from vol3d.data.transform_fingerprint import TransformFingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from vol3d.data.case_key import CaseKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """What is recorded of one cached case.

    Args:
        key: Its name.
        num_bytes: Size of its file.
        created: Seconds since 1970.
        contents: Digest of each input by its place in the item, see ``CaseKey``.
        paths: Digest of the path of each input file.
        fingerprint: Of the transforms that made it.
    """

    key: str
    num_bytes: int
    created: float
    contents: dict[str, str]
    paths: dict[str, str]
    fingerprint: TransformFingerprint

    def is_related(self, contents: set[str], paths: set[str]) -> bool:
        """Tell whether an input file has one of these contents or one of these paths."""
        return bool(paths & set(self.paths.values())) or bool(contents & {self.contents[at] for at in self.paths})

    def differences(self, contents: dict[str, str], fingerprint: TransformFingerprint) -> list[str]:
        """Say what changed from this entry to a later request, one line each; empty if nothing did."""
        lines = []
        for at in sorted({*self.contents, *contents}):
            old, new = self.contents.get(at), contents.get(at)
            if old != new:
                kind = (new or old or "").partition(" ")[0]
                change = "was added" if old is None else "was removed" if new is None else "changed"
                lines.append(f"input {at or 'path'}: {'content' if kind == 'file' else 'value'} {change}")
        return lines + self.fingerprint.differences(fingerprint)


def read_entries(folder: Path) -> list[CacheEntry]:
    """Return the records of all entries, oldest first; a damaged one is logged and left out."""
    entries = []
    for path, stat in list_entries(folder):
        try:
            record = read_cache_record(path)
        except (CacheFileError, OSError) as error:
            logger.warning("%s (%s)", error, path.name)
            continue
        fingerprint = TransformFingerprint.from_dict(record["fingerprint"])
        origin = (record["contents"], record["paths"], fingerprint)
        entries.append(CacheEntry(path.stem, stat.st_size, record["created"], *origin))
    return sorted(entries, key=lambda entry: entry.created)


def explain(key: CaseKey, fingerprint: TransformFingerprint, entries: list[CacheEntry]) -> tuple[bool, list[str]]:
    """Say whether a request hits, and what differs from the latest related entry if it does not.

    Args:
        key: Of the request.
        fingerprint: Of the request's transforms.
        entries: From :func:`read_entries`.
    """
    if any(entry.key == key.digest for entry in entries):
        return True, []
    files = {key.contents[at] for at in key.paths}
    related = [entry for entry in entries if entry.is_related(files, set(key.paths.values()))]
    if not related:
        return False, ["no entry was made from this path or from its content"]
    # The entry that needs the fewest changes explains best; of equals the latest.
    changes = [entry.differences(key.contents, fingerprint) for entry in reversed(related)]
    return False, min(changes, key=len) or ["the format of the cache changed"]
