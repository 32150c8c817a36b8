"""A preprocessed case as plain JSON and packed arrays, and back.

A *case* is what the deterministic transforms return: a dictionary, or a list of them, of tensors, arrays and plain
values. ``MetaTensor`` keeps its affine, its metadata and the operations applied to it, so that ``Invertd`` leads back
to the scan's grid. JSON says it all: reading a file from a stranger runs no code.

Texts of the input item (a path above all) are stored as references to it. A case therefore names no file, and the
metadata of a hit name the file that was asked for, wherever its content has been moved.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vol3d.data.case_tree import CaseTree
from vol3d.data.item_leaves import item_leaves

if TYPE_CHECKING:
    import torch

    from vol3d.data.packed_array import PackedArray


# Measured with the metadata of two NIfTI files: 9.8 KB of JSON become 64 KB of a compiled tree, and stay too.
_COMPILED_FACTOR = 8


@dataclass(frozen=True)
class PackedCase:
    """One preprocessed case in compact form.

    Args:
        tree: Structure and plain values as UTF-8 JSON; arrays are referred to by index.
        arrays: The packed arrays.
        belongs_to: Digest of the input paths if a text may be made from one of them: another path with the same
            content must not get it. None otherwise.
    """

    tree: bytes
    arrays: tuple[PackedArray, ...]
    belongs_to: str | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes in memory once it has been unpacked: of all arrays, and of the tree, compiled."""
        return _COMPILED_FACTOR * len(self.tree) + sum(array.num_bytes for array in self.arrays)

    @cached_property
    def _compiled_tree(self) -> CaseTree:
        return CaseTree(json.loads(self.tree))

    @property
    def num_unpacked_bytes(self) -> int:
        """Bytes of all arrays after :meth:`unpack`."""
        return sum(math.prod(array.shape) * array.dtype.itemsize for array in self.arrays)

    def to(self, device: torch.device) -> PackedCase:
        """Return a copy whose arrays own their memory, on ``device``."""
        return PackedCase(self.tree, tuple(array.to(device) for array in self.arrays), self.belongs_to)

    def unpack(self, item: object) -> Any:
        """Return the case as it was, in new memory.

        Args:
            item: The input item that is asked for; its texts replace the references.
        """
        return self._compiled_tree.build(self.arrays, dict(item_leaves(item)))
