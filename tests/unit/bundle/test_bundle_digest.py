"""One number that changes with what a bundle computes, and with nothing else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from vol3d.bundle.digest import bundle_digest
from vol3d.bundle.layout import BundleLayout

if TYPE_CHECKING:
    from pathlib import Path


def test_a_copy_has_the_same_digest(maker: Any, tmp_path: Path) -> None:
    layout = maker.weights()
    shutil.copytree(layout.root, tmp_path / "another_name")
    assert bundle_digest(BundleLayout(tmp_path / "another_name")) == bundle_digest(layout)


def test_configs_and_weights_count_and_documents_do_not(maker: Any) -> None:
    layout = maker.weights()
    first = bundle_digest(layout)
    (layout.root / "docs").mkdir()
    (layout.root / "docs" / "README.md").write_text("words")
    assert bundle_digest(layout) == first
    maker.inference(seed=1)
    second = bundle_digest(layout)
    maker.weights({"weight": 1})
    assert len({first, second, bundle_digest(layout)}) == 3


def test_a_bundle_without_weights_has_a_digest_too(maker: Any) -> None:
    assert len(bundle_digest(maker.layout)) == 64
