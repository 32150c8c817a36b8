"""One number for what a bundle computes: its configs and its weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from vol3d.data.content_digest import ContentDigests

if TYPE_CHECKING:
    from vol3d.bundle.layout import BundleLayout


def bundle_digest(layout: BundleLayout) -> str:
    """Return a SHA-256 over names and contents of everything in ``configs/`` and ``models/``."""
    digests = ContentDigests()
    parts = [digests.digest(layout.root / part) for part in ("configs", "models") if (layout.root / part).is_dir()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
