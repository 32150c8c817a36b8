"""``vol3d doctor`` and ``vol3d bundles``: what is here, and what to do about what is not."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from vol3d.cli import doctor


def rows(finished):
    """The cells of a table's rows by their first cell."""
    lines = [line.split("│")[1:-1] for line in finished.out.splitlines() if "│" in line]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def test_doctor_lists_what_vol3d_requires_and_its_extras(run):
    finished = run("doctor")
    assert (finished.code, finished.err) == (0, "")
    found = rows(finished)
    for package in ("monai", "torch", "nibabel", "simpleitk", "pydicom", "typer"):
        assert found[package] == [importlib.metadata.version(package), ""]
    assert {"python", "extra demo", "extra export", "cpu", "free disk here"} <= set(found)
    assert "extra test" not in found


def hide(monkeypatch, package, version=None):
    real = importlib.metadata.version

    def look_up(name):
        if name != package:
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(doctor.importlib.metadata, "version", look_up)


def test_missing_package_has_its_remedy_and_an_exit_code(run, monkeypatch):
    hide(monkeypatch, "pydicom")
    finished = run("doctor")
    assert finished.code == 5
    assert "pydicom" in finished.error_line
    assert rows(finished)["pydicom"][0] == "missing"
    assert rows(finished)["pydicom"][1].startswith("pip install 'pydicom>=")


def test_wrong_version_has_its_remedy_and_an_exit_code(run, monkeypatch):
    hide(monkeypatch, "monai", "1.4.0")
    finished = run("doctor")
    assert finished.code == 5
    assert rows(finished)["monai"] == ["1.4.0", "pip install 'monai==1.6.1'"]


def test_missing_extra_has_its_remedy_and_is_no_fault(run, monkeypatch):
    hide(monkeypatch, "nilearn")
    finished = run("doctor")
    assert finished.code == 0
    assert rows(finished)["extra demo"] == ["no nilearn", "pip install 'vol3d[demo]'"]


def test_bundles_are_listed_as_table_and_as_json(run, bundle):
    assert bundle.name in rows(run("bundles"))
    listed = {row["name"]: row for row in json.loads(run("bundles", "--json").out)}
    assert listed[bundle.name]["has_weights"] is True
    assert listed[bundle.name]["path"] == str(bundle)
    assert listed[bundle.name]["modality"] == "MR"
