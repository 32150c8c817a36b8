"""vol3d: run, check and share trained 3D networks on CT and MR volumes.

>>> import vol3d
>>> "load_bundle" in vol3d.__all__
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vol3d.bundle.load import load_bundle as load_bundle
    from vol3d.data.volume import Volume as Volume
    from vol3d.data.volume_reader import read_volume as read_volume
    from vol3d.errors import Vol3dError as Vol3dError
    from vol3d.geometry import VolumeGeometry as VolumeGeometry
    from vol3d.inference.predictor import VolumePredictor as VolumePredictor

__version__ = "0.1.0"

_HOMES = {
    "Vol3dError": "vol3d.errors",
    "Volume": "vol3d.data.volume",
    "VolumeGeometry": "vol3d.geometry",
    "VolumePredictor": "vol3d.inference.predictor",
    "load_bundle": "vol3d.bundle.load",
    "read_volume": "vol3d.data.volume_reader",
}

__all__ = ["Vol3dError", "Volume", "VolumeGeometry", "VolumePredictor", "load_bundle", "read_volume"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch and monai cost seconds that ``vol3d --help`` must not pay."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vol3d' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
