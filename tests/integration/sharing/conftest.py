"""Makes the modules beside the sharing tests importable, and their fixtures known."""

from __future__ import annotations

import sys
from pathlib import Path

# pytest's importlib mode adds no folder to the path.
sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "sharing"))

from sharing_fixtures import bundle, key, light_archive, site, weighted_archive, weighted_bundle  # noqa: F401
