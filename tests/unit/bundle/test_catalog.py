"""Bundles by name and by folder, without importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vol3d.bundle.catalog import bundle_folders, find_bundle, list_bundles
from vol3d.bundle.layout import LAYERS, BundleLayout
from vol3d.errors import BundleError, UnknownBundleError, WeightsError


@pytest.fixture
def named_folder(maker: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny bundle's folder is the first that is searched."""
    folder: Path = maker.layout.root.parent
    monkeypatch.setenv("VOL3D_BUNDLES", os.fspath(folder))
    return folder


def test_a_bundle_is_found_by_name_and_by_folder(named_folder: Path) -> None:
    by_name = find_bundle("brain_mr_segmentation")
    assert by_name.root == named_folder / "brain_mr_segmentation"
    assert find_bundle(by_name.root) == by_name
    assert by_name in list_bundles()


def test_bundles_are_sorted_and_the_first_folder_wins(named_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = named_folder.parent / "other"
    for name in ("brain_mr_segmentation", "aorta_ct_segmentation"):
        (other / name / "configs").mkdir(parents=True)
        (other / name / "configs" / "metadata.json").write_text("{}")
    monkeypatch.setenv("VOL3D_BUNDLES", f"{named_folder}{os.pathsep}{other}")
    names = [bundle.name for bundle in list_bundles()]
    assert names == sorted(names)
    assert find_bundle("brain_mr_segmentation").root.parent == named_folder
    assert find_bundle("aorta_ct_segmentation").root.parent == other


def test_the_current_folder_never_shadows_an_installed_bundle(
    named_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "elsewhere" / "bundles" / "brain_mr_segmentation" / "configs"
    planted.mkdir(parents=True)
    (planted / "metadata.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert bundle_folders()[-1] == Path.cwd() / "bundles"
    assert find_bundle("brain_mr_segmentation").root.parent == named_folder


@pytest.mark.usefixtures("named_folder")
def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownBundleError, match=r"'brain_mri_segmentation'; did you mean brain_mr_segmentation\?"):
        find_bundle("brain_mri_segmentation")
    with pytest.raises(UnknownBundleError, match=r"there are: .*brain_mr_segmentation"):
        find_bundle("qqqq")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownBundleError, match=r"must hold configs/metadata\.json"):
        find_bundle(tmp_path)


def test_listing_imports_neither_torch_nor_monai() -> None:
    code = (
        "import sys; from vol3d.bundle.catalog import list_bundles; list_bundles();"
        "sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_layout_names_the_layers_of_each_job(maker: Any) -> None:
    layout: BundleLayout = maker.layout
    assert [path.name for path in layout.config_paths("train")] == ["inference.yaml", "train.yaml"]
    with pytest.raises(BundleError, match=r"must have configs/multi_gpu\.yaml for this job"):
        layout.config_paths("multi_gpu")
    assert all(layers[0] == "inference" for layers in LAYERS.values())


def test_missing_weights_are_refused_with_the_remedy(maker: Any) -> None:
    with pytest.raises(WeightsError, match=r"models/model\.pt, got no such file; train them with `vol3d train"):
        maker.layout.require_weights()
    assert maker.weights().require_weights() == maker.layout.weights_path


@pytest.mark.parametrize(("content", "message"), [("[]", "must be a JSON object, got list"), ("{", "readable")])
def test_metadata_must_be_a_json_object(maker: Any, content: str, message: str) -> None:
    maker.layout.metadata_path.write_text(content)
    with pytest.raises(BundleError, match=message):
        maker.layout.metadata()
