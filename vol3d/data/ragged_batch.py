"""Batches of volumes that differ in size: columns of lists instead of one stacked tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def collate_ragged(items: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return one list per key, in the order of ``items``; a ``collate_fn`` for loaders.

    Nothing is stacked: ``BatchAugment`` crops and pads each volume while it resamples it.

    Example:
        >>> collate_ragged([{"case": "a"}, {"case": "b"}])
        {'case': ['a', 'b']}
    """
    return {key: [item[key] for item in items] for key in items[0]}
