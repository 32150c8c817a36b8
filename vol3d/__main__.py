"""``python -m vol3d`` is the ``vol3d`` command."""

from __future__ import annotations

from vol3d.cli.main import main

if __name__ == "__main__":
    main()
