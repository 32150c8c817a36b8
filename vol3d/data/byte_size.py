"""Sizes in bytes as people write them in a config: ``"1GiB"``, ``"500 MB"`` or a plain number."""

from __future__ import annotations

import re

from vol3d.errors import ConfigError

_UNITS = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("IB", 1024), ("B", 1000))
}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(size: int | str, name: str) -> int:
    """Return a size in bytes.

    Args:
        size: Bytes, or a number with a unit: B, KiB, MiB, GiB, TiB (powers of 1024), KB, MB, GB, TB (powers of 1000).
        name: What the size is for; the error names it.

    Raises:
        ConfigError: If the size is negative or cannot be read.

    Example:
        >>> parse_bytes("1.5 GiB", "ram_bytes"), parse_bytes(42, "ram_bytes")
        (1610612736, 42)
    """
    match = _PATTERN.fullmatch(str(size))
    factor = _UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None or isinstance(size, (bool, float)):
        raise ConfigError(f"{name} must be a number of bytes, got {size!r}; write for example 1GiB or 500MB")
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def format_bytes(num_bytes: float) -> str:
    """Return a size for people, for example ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
