"""Rehearse the exchange of a bundle between two sites, offline, with the real commands.

Site A packs and signs; site B trusts A's key, verifies, pulls, runs the bundle and gets the same output as A; then B
removes A's key and the bundle is refused. Each command is printed as a person would type it. Both sites live in a
temporary folder: nothing else is touched, and no network is used. Needs the extra ``share``.

    python scripts/rehearse_two_sites.py bundles/hippocampus_mr_segmentation
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

REFUSED = 3


def run(site: Path, *arguments: str | Path, cwd: Path | None = None, expected: int = 0) -> None:
    """Run a command at a site and stop the rehearsal if its exit code is another one."""
    words = [str(argument) for argument in arguments]
    print(f"[{site.name}] $ {Path(words[0]).name} {' '.join(words[1:])}", flush=True)
    done = subprocess.run(words, env=os.environ | {"VOL3D_HOME": str(site)}, cwd=cwd, check=False)  # noqa: S603
    if done.returncode != expected:
        sys.exit(f"rehearsal failed: exit code {done.returncode} instead of {expected}")


def make_key(folder: Path) -> tuple[Path, Path]:
    """Write a new P-256 key pair; returns the files of the private and the public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "a.pem", folder / "a.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def make_volume(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write a seeded volume of blobs, which stands for a scan."""
    noise = np.random.RandomState(0).random_sample(shape)
    for axis in range(3):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-3, 4)) / 7
    folder.mkdir()
    volume = ((noise - noise.min()) / (noise.max() - noise.min()) * 1000).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "volume.nii")


def run_bundle(site: Path, bundle: Path, data: Path, output: Path) -> dict[str, str]:
    """Run a bundle with plain MONAI; returns the SHA-256 of the voxels of every result."""
    options = ["--config_file", "configs/inference.yaml", "--bundle_root", ".", "--dataset_dir", data]
    run(site, sys.executable, "-m", "monai.bundle", "run", *options, "--output_dir", output, cwd=bundle)
    results = {}
    for path in sorted(output.rglob("*.nii*")):
        image = nibabel.load(path)
        results[path.name] = hashlib.sha256(np.asanyarray(image.dataobj).tobytes() + image.affine.tobytes()).hexdigest()
    return results


def main() -> None:
    """Rehearse."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="bundle folder with weights")
    parser.add_argument("--data", type=Path, help="folder with a volume to run on; default: a made-up one")
    arguments = parser.parse_args()
    bundle = arguments.bundle.resolve()
    vol3d = [sys.executable, "-m", "vol3d", "share"]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        site_a, site_b, exchange = work / "site-a", work / "site-b", work / "exchange"
        for folder in (site_a, site_b, exchange):
            folder.mkdir()
        data = arguments.data.resolve() if arguments.data else work / "data"
        if not arguments.data:
            make_volume(data, (48, 56, 48))
        private, public = make_key(site_a)

        run(site_a, *vol3d, "check", bundle)
        run(site_a, *vol3d, "pack", bundle, "-o", site_a)
        (packed,) = site_a.glob("*.v3b")
        run(site_a, *vol3d, "sign", packed, "--key", private)
        run(site_a, *vol3d, "push", packed, exchange)
        at_a = run_bundle(site_a, bundle, data, work / "results-a")

        run(site_b, *vol3d, "trust", "add", "site-a", public, "--bundles", bundle.name)
        run(site_b, *vol3d, "verify", exchange / packed.name)
        run(site_b, *vol3d, "pull", bundle.name, exchange)
        run(site_b, *vol3d, "verify", bundle.name, "--probe")
        (installed,) = (site_b / "store/bundles" / bundle.name).glob(f"[0-9]*/{bundle.name}")
        at_b = run_bundle(site_b, installed, data, work / "results-b")
        if not at_a or at_a != at_b:
            sys.exit(f"rehearsal failed: results differ: {at_a} at site A, {at_b} at site B")
        print(f"the results of both sites are bit-identical: {at_a}")

        run(site_b, *vol3d, "trust", "remove", "site-a")
        run(site_b, *vol3d, "verify", bundle.name, expected=REFUSED)
        print("the rehearsal is complete")


if __name__ == "__main__":
    main()
