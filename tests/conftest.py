"""Fixtures shared by all tests: real data where it is present, and the reason where it is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[1]


def data_root() -> Path | None:
    """Return the folder of real CT and MR data, or None; see CONTRIBUTING.md."""
    for root in (Path(os.environ.get("VOL3D_DATA", "")), REPOSITORY.parent / "shared" / "data"):
        if root.name and root.is_dir():
            return root
    return None


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests and the programs they start out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOL3D_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; the test is skipped, with the reason, where it is absent."""
    root = data_root()
    if root is None:
        pytest.skip("no real data: set VOL3D_DATA to its folder")
    return root
