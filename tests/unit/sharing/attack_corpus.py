"""The attack corpus: bundles, archives, configs, checkpoints, signatures and trust files that must be refused.

Run as a program it makes every attack in a folder of its own, gives it to ``vol3d share`` as a user would, and prints
one JSON line each: exit code, the line on stderr, seconds, and whether torch was imported. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import attack_archives  # noqa: F401 - registers its attacks, as do the next three
import attack_configs  # noqa: F401
import attack_files  # noqa: F401
import attack_signatures  # noqa: F401
from attack_registry import ATTACKS

from vol3d.cli import main as command_line


def run_attack(name: str, folder: Path) -> dict[str, Any]:
    """Give one attack to the command line; its files lie in ``folder``, the site's home in ``folder/home``."""
    os.environ["VOL3D_HOME"] = str(folder / "home")
    work = folder / "work"
    work.mkdir(parents=True)
    arguments = ATTACKS[name][0](work)
    errors = io.StringIO()
    command_line.err.file = errors
    command_line.out.file = io.StringIO()
    sys.argv = ["vol3d", "share", *arguments]
    start = time.process_time()
    exit_code: Any = 0
    with contextlib.redirect_stderr(errors):
        try:
            command_line.main()
        except SystemExit as end:
            exit_code = end.code
    return {
        "name": name,
        "exit_code": exit_code,
        "stderr": errors.getvalue(),
        "seconds": time.process_time() - start,
        "imported_torch": "torch" in sys.modules or "monai" in sys.modules,
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for attack_name in ATTACKS:
        sys.stdout.write(json.dumps(run_attack(attack_name, folder / attack_name)) + "\n")
