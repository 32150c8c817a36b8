"""What answers without a network never pays the seconds that importing torch or MONAI takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "monai", "ignite", "itk", "SimpleITK", "scipy", "matplotlib", "openvino"}
PROGRAM = """
import sys
from vol3d.cli.main import main
sys.argv = ["vol3d", *{arguments!r}]
try:
    main()
finally:
    print(*sorted(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["bundles"],
        ["predict", "--help"],
        ["share", "check", "--help"],
        ["predict", "absent_bundle", "scan.nii.gz", "-o", "out"],
    ],
    ids=" ".join,
)
def test_command_imports_nothing_heavy(arguments: list[str]) -> None:
    code = PROGRAM.format(arguments=arguments, heavy=sorted(HEAVY))
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == (2 if "absent_bundle" in arguments else 0)
    assert finished.stderr.splitlines()[-1] == ""


def test_import_vol3d_imports_nothing_heavy() -> None:
    code = f"import sys, vol3d; print([name for name in {sorted(HEAVY)} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
