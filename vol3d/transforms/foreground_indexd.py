"""Keep with each training case a compact list of its organs' voxels, from which patches are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from vol3d.transforms.balanced_patches import ForegroundIndex

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

FOREGROUND_KEY = "foreground"
"""Key of an item under which the voxels of each class stand, as in `ForegroundIndex`."""


class ForegroundIndexd(MapTransform):
    """Add ``foreground``, ``{class: flat C-order indices}``, of a labelmap ``1 H W D``.

    Deterministic and last of a preprocessing, so that a cache keeps its result; `AugmentPrepareBatch` draws from it.

    Args:
        keys: The labelmap's key, one.
        max_voxels: Kept per class.
    """

    def __init__(self, keys: KeysCollection = "label", max_voxels: int = 1000) -> None:
        super().__init__(keys)
        self.max_voxels = max_voxels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the index added."""
        (key,) = self.keys
        index = ForegroundIndex.from_label(np.asarray(data[key].cpu()), self.max_voxels)
        return {**data, FOREGROUND_KEY: dict(index.voxels)}
