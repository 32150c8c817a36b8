"""A confined process reaches only what its run needs; each test confines a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vol3d.errors import RequirementError
from vol3d.sharing import confine as module

if TYPE_CHECKING:
    from pathlib import Path

needs_landlock = pytest.mark.skipif(module.landlock_version() < 1, reason="this kernel has no Landlock")

PROGRAM = """
import sys
from pathlib import Path
from vol3d.sharing.confine import confine
bundle, data, results, home = map(Path, sys.argv[1:5])
confine([bundle, data], [results])
exec(sys.argv[5])
"""


def run_confined(tmp_path: Path, code: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    folders = [tmp_path / name for name in ("bundle", "data", "results", "home")]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_text("content")
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, folders), code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )


@needs_landlock
@pytest.mark.parametrize(
    "code",
    [
        "print((bundle / 'file').read_text(), (data / 'file').read_text())",
        "(results / 'new').write_text('x'); (results / 'file').unlink(); (results / 'sub').mkdir()",
        "(results / 'a').write_text('x'); (results / 'a').rename(results / 'b')",
        "import json, sqlite3, numpy; print(numpy.ones(1))",
        "import multiprocessing; multiprocessing.Lock()",
    ],
)
def test_confined_process_does_its_work(code: str, tmp_path: Path) -> None:
    done = run_confined(tmp_path, code)
    assert done.returncode == 0, done.stderr


@needs_landlock
@pytest.mark.parametrize(
    "code",
    [
        "(home / 'file').read_text()",
        "list(home.iterdir())",
        "(home / 'file').write_text('x')",
        "(home / 'new').mkdir()",
        "(bundle / 'file').write_text('x')",
        "(bundle / 'file').unlink()",
        "(data / 'file').rename(data / 'other')",
        "(results / 'link').hardlink_to(home / 'file')",
        "(results / 'link').symlink_to(home / 'file'); (results / 'link').read_text()",
        "import os; os.truncate(data / 'file', 0)",
        "import subprocess; subprocess.run(['cat', str(home / 'file')], check=True)",
    ],
)
def test_confined_process_is_stopped(code: str, tmp_path: Path) -> None:
    done = run_confined(tmp_path, code)
    assert done.returncode != 0
    # A hard link across the border of two rules is EXDEV, which programs know how to handle.
    assert any(word in done.stderr for word in ("PermissionError", "CalledProcessError", "cross-device"))
    assert (tmp_path / "home/file").read_text() == (tmp_path / "data/file").read_text() == "content"


NETWORK = """
import torch
from monai.networks.nets import UNet
from torch.utils.data import DataLoader
network = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=[4, 8], strides=[2])
torch.save(network(torch.ones(1, 1, 16, 16, 16)), results / 'output.pt')
len(list(DataLoader(torch.arange(4.0), num_workers=2)))
"""


@pytest.mark.slow
@needs_landlock
def test_confined_process_runs_a_network_and_loads_with_workers(tmp_path: Path) -> None:
    done = run_confined(tmp_path, NETWORK)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/output.pt").is_file()


@pytest.mark.skipif(module.landlock_version() < 4, reason="this kernel's Landlock does not cover TCP")
def test_confined_process_opens_no_connection(tmp_path: Path) -> None:
    done = run_confined(tmp_path, "import socket; socket.create_connection(('127.0.0.1', 9), 1)")
    assert "PermissionError" in done.stderr


ADMITTED = """
import sys
from pathlib import Path
from vol3d.sharing.admit import AdmittedBundle
bundle, data, results, home = map(Path, sys.argv[1:5])
AdmittedBundle(bundle, True, "scripts", must_confine=MUST).confine([data], [results])
exec(sys.argv[5])
"""


@needs_landlock
@pytest.mark.parametrize("must", [True, False])
def test_only_a_bundle_with_own_code_is_confined(must: bool, tmp_path: Path) -> None:
    work = "(bundle / 'file').read_text(); (data / 'file').read_text(); (results / 'x').touch()"
    done = run_confined(tmp_path, f"{work}; (home / 'file').read_text()", ADMITTED.replace("MUST", str(must)))
    assert ("PermissionError" in done.stderr) is must
    assert (tmp_path / "results/x").exists()


def test_without_landlock_the_run_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "landlock_version", lambda: 0)
    with pytest.raises(RequirementError, match=r"confine\.landlock.*--unconfined"):
        module.confine([], [tmp_path])


@needs_landlock
def test_process_with_threads_is_not_half_confined(tmp_path: Path) -> None:
    code = (
        "import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); "
        "from vol3d.sharing.confine import confine; confine([], [])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "confine.threads" in done.stderr
