"""Remembers the entries that a data set has in the case cache: the next start need not work out the key of each case.

The name of a record stands for the fingerprint of the transforms and for every input file with its signature (see
``content_digest``), so whatever has changed since has no record. A record only spares looking ahead: each case is
still checked by its content when it is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

from vol3d.data.atomic_write import atomic_path
from vol3d.data.cache_entries import entry_path
from vol3d.data.canonical_value import canonical_digest, canonical_value
from vol3d.data.case_key import CACHE_FORMAT, is_input_path
from vol3d.data.content_digest import file_signature
from vol3d.data.item_leaves import item_leaves

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class FillRecord:
    """The record of some items under one fingerprint.

    Args:
        folder: Of the disk tier.
        fingerprint_digest: Of the deterministic transforms.
        items: Input items.

    Raises:
        ConfigError: If a value of an item cannot be fingerprinted.
        OSError: If an input file cannot be looked at.
    """

    def __init__(self, folder: Path, fingerprint_digest: str, items: Sequence[Any]) -> None:
        self.folder = folder
        self.num_items = len(items)
        digest = hashlib.sha256(f"{CACHE_FORMAT} {fingerprint_digest}".encode())
        for item in items:
            for at, leaf in item_leaves(item):
                is_path = is_input_path(leaf)
                state = file_signature(leaf) if is_path else canonical_digest(canonical_value(leaf, f"item {at}"))
                digest.update(f"\n{at} {is_path} {state}".encode("utf-8", "surrogateescape"))
        self.path = folder / "filled" / f"{digest.hexdigest()}.json"

    def sizes(self) -> list[int] | None:
        """Return the bytes of each item's entry, or None unless a record says which they are and all are there."""
        try:
            keys = json.loads(self.path.read_bytes())
            sizes = [entry_path(self.folder, key).stat().st_size for key in keys]
        except (OSError, ValueError, TypeError):
            return None
        return sizes if len(sizes) == self.num_items else None

    def write(self, keys: Sequence[str]) -> None:
        """Remember the keys of the items, in order; what cannot be written is found out again next time."""
        with contextlib.suppress(OSError), atomic_path(self.path, is_durable=False) as aside:
            aside.write_text(json.dumps(list(keys)))
