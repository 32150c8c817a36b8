"""The key of a cached case: what goes in (content of its files, other values) and what is done with it.

The key holds no path: a data set that moves keeps its cache, and two cases with the same bytes share an entry.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vol3d.data.canonical_value import Json, canonical_digest, canonical_value
from vol3d.data.content_digest import ContentDigests, path_digest
from vol3d.data.item_leaves import item_leaves

if TYPE_CHECKING:
    from vol3d.data.transform_fingerprint import TransformFingerprint

CACHE_FORMAT = 1
"""Raise it when a cached case would be read or computed differently than by an older vol3d."""


@dataclass(frozen=True)
class CaseKey:
    """Key and origin of one case.

    Args:
        digest: 64 hexadecimal digits: the name of the entry.
        contents: Digest of each leaf of the item by its place: of a file's content, or of any other value.
        paths: Digest of the path of each leaf that is a file or folder, by its place.
    """

    digest: str
    contents: dict[str, str]
    paths: dict[str, str]

    @property
    def paths_digest(self) -> str:
        """Stands for all paths of the item together."""
        return canonical_digest(self.paths)

    def as_dict(self) -> dict[str, Json]:
        """Return the origin as plain JSON, for the record of an entry."""
        return {"contents": self.contents, "paths": self.paths}


def case_key(item: Any, fingerprint: TransformFingerprint, digests: ContentDigests) -> CaseKey:
    """Return the key of an input item under a transform prefix.

    Args:
        item: A path, or a dictionary or list of paths and plain values.
        fingerprint: Of the deterministic transforms.
        digests: Remembers the content of files.

    Raises:
        VolumeReadError: If an existing file cannot be read.
        ConfigError: If a value of the item cannot be fingerprinted.
    """
    contents, paths = {}, {}
    for at, leaf in item_leaves(item):
        if is_input_path(leaf):
            contents[at] = f"file {digests.digest(leaf)}"
            paths[at] = path_digest(leaf)
        else:
            contents[at] = f"value {canonical_digest(canonical_value(leaf, f'item {at}'))}"
    text = f"{CACHE_FORMAT} {fingerprint.digest} {canonical_digest([[at, contents[at]] for at in contents])}"
    return CaseKey(hashlib.sha256(text.encode()).hexdigest(), contents, paths)


def is_input_path(leaf: Any) -> bool:
    """Whether a leaf of an input item names a file or folder that is there."""
    if not isinstance(leaf, (str, os.PathLike)) or not os.fspath(leaf):
        return False
    # A bare word that happens to name a folder here ("data") is a value; a bare file name is an input.
    return os.path.isfile(leaf) or (os.sep in os.fspath(leaf) and os.path.isdir(leaf))  # noqa: PTH112, PTH113
