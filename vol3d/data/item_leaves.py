"""Walk the leaves of an input item: of the dictionary of paths and values that a data list holds per case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def item_leaves(item: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf with its place.

    Example:
        >>> list(item_leaves({"image": ["t1.nii", "t2.nii"], "fold": 3}))
        [('image[0]', 't1.nii'), ('image[1]', 't2.nii'), ('fold', 3)]
        >>> list(item_leaves("t1.nii"))
        [('', 't1.nii')]
    """
    if isinstance(item, Mapping):
        for key, inner in item.items():
            yield from item_leaves(inner, f"{at}.{key}" if at else str(key))
    elif isinstance(item, Sequence) and not isinstance(item, (str, bytes)):
        for index, inner in enumerate(item):
            yield from item_leaves(inner, f"{at}[{index}]")
    else:
        yield at, item
