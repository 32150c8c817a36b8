"""A bundle that went through pack and pull runs as before, in plain MONAI and from the repository's own bundles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from sharing_bundles import NAME, KeyPair, Site

from vol3d.sharing.archive import read_head
from vol3d.sharing.audit import audit_bundle
from vol3d.sharing.check import check_bundle
from vol3d.sharing.pack import pack_bundle, sign_archive
from vol3d.sharing.probe import check_probe
from vol3d.sharing.pull import PullOptions, pull
from vol3d.sharing.remote import FolderRemote

REPOSITORY = Path(__file__).resolve().parents[3]
BUNDLES = sorted(path.parents[1] for path in REPOSITORY.glob("bundles/*/configs/metadata.json"))


def run_with_monai(bundle: Path, data: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Do what ``python -m monai.bundle run`` does, from the bundle's folder."""
    monkeypatch.chdir(bundle)
    options = {"bundle_root": ".", "dataset_dir": str(data), "output_dir": str(output)}
    with pytest.warns(UserWarning, match="no allow list"):
        monai.bundle.run(config_file="configs/inference.yaml", **options)
    (result,) = output.rglob("*.nii*")
    return np.asanyarray(nibabel.load(result).dataobj)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    voxels = np.random.RandomState(0).random_sample((20, 24, 18)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / "volume.nii")
    return folder


def test_pulled_bundle_runs_in_plain_monai_with_bit_identical_output(
    weighted_bundle: Path,
    weighted_archive: Path,
    site: Site,
    volume: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = pull(FolderRemote(weighted_archive.parent), NAME, site.store, site.trust, PullOptions()).path
    before = run_with_monai(weighted_bundle, volume, tmp_path / "before", monkeypatch)
    after = run_with_monai(installed, volume, tmp_path / "after", monkeypatch)
    assert before.any()
    assert np.array_equal(before, after)


def test_monai_loads_the_network_of_a_pulled_bundle(weighted_archive: Path, site: Site) -> None:
    installed = pull(FolderRemote(weighted_archive.parent), NAME, site.store, site.trust, PullOptions()).path
    # monai.bundle.load reads exactly this file.
    parser = ConfigParser(config=ConfigParser.load_config_file(installed / "configs/inference.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(installed / "models/model.pt", weights_only=True))


@pytest.mark.slow
def test_rehearsal_of_two_sites_ends_well(weighted_bundle: Path) -> None:
    script = REPOSITORY / "scripts/rehearse_two_sites.py"
    done = subprocess.run(
        [sys.executable, str(script), str(weighted_bundle)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the results of both sites are bit-identical" in done.stdout
    assert "[signature.untrusted]" in done.stderr
    assert done.stdout.rstrip().endswith("the rehearsal is complete")


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_configs_of_our_bundle_pass_the_audit(bundle: Path) -> None:
    assert [finding.line() for finding in audit_bundle(bundle)] == []


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_our_bundle_goes_round_and_computes_the_same(bundle: Path, key: KeyPair, site: Site, tmp_path: Path) -> None:
    if not (bundle / "models/model.pt").is_file():
        pytest.skip(f"{bundle.name} has no weights here")
    assert [finding.line() for finding in check_bundle(bundle).findings] == []
    packed = pack_bundle(bundle, tmp_path)
    sign_archive(packed.path, key.private)
    site.trust.signers["site-0"] = site.trust.signers["site-0"].__class__(
        **(vars(site.trust.signers["site-0"]) | {"bundles": ("*",)})
    )
    installed = pull(FolderRemote(tmp_path), bundle.name, site.store, site.trust, PullOptions()).path
    assert packed.lock.probe is not None
    assert check_probe(installed, installed / "models/model.safetensors", packed.lock.probe) == "bit-identical"
    assert read_head(packed.path).lock == packed.lock
