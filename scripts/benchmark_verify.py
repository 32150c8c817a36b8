"""How long the verification of an installed bundle takes, beside plain SHA-256 in the same run, on one core.

    python scripts/benchmark_verify.py --gib 1

The project's target is 1 GiB in at most 8 s; the exit code says whether it was met.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

from vol3d.sharing.contents import LOCK_NAME
from vol3d.sharing.lock import Lock, LockedFile
from vol3d.sharing.store import hash_file
from vol3d.sharing.trust import Trust
from vol3d.sharing.verify import verify_folder

TARGET_S_PER_GIB = 8.0
MIB = bytes(range(256)) * 4096


def make_bundle(folder: Path, num_mib: int) -> None:
    """Write an installed bundle whose one weights file has so many MiB."""
    contents = {"LICENSE": b"x\n", "configs/metadata.json": b"{}", "docs/README.md": b"# x\n"}
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / "models").mkdir()
    with (folder / "models/model.safetensors").open("wb") as stream:
        for _ in range(num_mib):
            stream.write(MIB)
    kinds = {"LICENSE": "licence", "configs/metadata.json": "metadata", "docs/README.md": "card"}
    kinds["models/model.safetensors"] = "weights"
    files = tuple(LockedFile(path, *hash_file(folder / path), kinds[path]) for path in sorted(kinds))
    lock = Lock("benchmark", "1.0.0", files, {}, "x", "x", {}, {}, None)
    (folder / LOCK_NAME).write_bytes(lock.to_bytes())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gib", type=float, default=1.0)
    gib = parser.parse_args().gib
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "benchmark")
        make_bundle(folder, int(gib * 1024))
        start = time.perf_counter()
        digest = hashlib.sha256()
        for _ in range(int(gib * 1024)):
            digest.update(MIB)
        plain_s = time.perf_counter() - start
        start = time.perf_counter()
        verify_folder(folder, "integrity", Trust())
        verify_s = time.perf_counter() - start
    print(f"{gib:g} GiB verified in {verify_s:.2f} s, {verify_s / plain_s:.2f} times plain SHA-256 ({plain_s:.2f} s)")
    sys.exit(0 if verify_s <= TARGET_S_PER_GIB * gib else 1)


if __name__ == "__main__":
    main()
