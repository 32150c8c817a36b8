"""Fixtures of the sharing tests: one bundle, packed and signed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sharing_bundles import KeyPair, Site, make_bundle, make_key, make_site

from vol3d.sharing.pack import pack_bundle, sign_archive

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_key(tmp_path_factory.mktemp("key"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle without weights: packing it imports no torch."""
    return make_bundle(tmp_path / "own", weights_seed=None)


@pytest.fixture(scope="session")
def weighted_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with weights; not to be changed."""
    return make_bundle(tmp_path_factory.mktemp("weighted"))


@pytest.fixture(scope="session")
def weighted_archive(weighted_bundle: Path, key: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed and signed bundle with weights; not to be changed."""
    path = pack_bundle(weighted_bundle, tmp_path_factory.mktemp("packed")).path
    sign_archive(path, key.private)
    return path


@pytest.fixture(scope="session")
def light_archive(key: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed and signed bundle without weights; not to be changed."""
    root = make_bundle(tmp_path_factory.mktemp("light"), weights_seed=None)
    path = pack_bundle(root, tmp_path_factory.mktemp("light_packed")).path
    sign_archive(path, key.private)
    return path


@pytest.fixture
def site(tmp_path: Path, key: KeyPair, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A receiving site that trusts the key for ``tiny_*``."""
    home = tmp_path / "home"
    monkeypatch.setenv("VOL3D_HOME", str(home))
    return make_site(home, key)
