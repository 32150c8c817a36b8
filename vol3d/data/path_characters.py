"""Characters that a path must not have, because MONAI's config parser reads them as its own syntax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vol3d.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def check_path_characters(path: str | Path) -> None:
    """Refuse a path that would change its meaning inside a bundle config.

    MONAI 1.6 turns every ``#`` of a config string into ``::`` (its separator of ids) and takes a string with a
    leading ``%`` as a macro, ``$`` as an expression, ``@`` as a reference: the run would read another path.

    Args:
        path: Path as the user gave it, not resolved.

    Raises:
        UsageError: If the path holds ``#`` or begins with ``%``, ``$`` or ``@``.
    """
    text = str(path)
    if "#" in text:
        raise UsageError(f"path must not contain '#', got {text!r}; rename the file or folder")
    if text.startswith(("%", "$", "@")):
        raise UsageError(f"path must not begin with {text[0]!r}, got {text!r}; write './{text}' instead")
