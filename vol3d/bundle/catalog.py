"""Which bundles this machine has; answers without importing torch or monai."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from vol3d.bundle.layout import BundleLayout
from vol3d.errors import UnknownBundleError


def bundle_folders() -> list[Path]:
    """Return the folders that are searched for bundles, first match wins.

    ``VOL3D_BUNDLES`` (several, separated as in ``PATH``), then the installed package's bundles or, in a checkout, its
    ``bundles/``, then ``bundles/`` of the current folder: a folder that someone else filled never shadows an
    installed bundle of the same name.
    """
    package = Path(__file__).resolve().parents[1]
    named = [Path(entry).absolute() for entry in os.environ.get("VOL3D_BUNDLES", "").split(os.pathsep) if entry]
    candidates = [*named, package / "_bundles", package.parent / "bundles", Path.cwd() / "bundles"]
    return list(dict.fromkeys(folder for folder in candidates if folder.is_dir()))


def list_bundles() -> list[BundleLayout]:
    """Return every bundle found, sorted by name."""
    found: dict[str, BundleLayout] = {}
    for folder in bundle_folders():
        for metadata in folder.glob("*/configs/metadata.json"):
            layout = BundleLayout(metadata.parents[1])
            found.setdefault(layout.name, layout)
    return [found[name] for name in sorted(found)]


def find_bundle(name_or_path: str | os.PathLike[str]) -> BundleLayout:
    """Return the bundle of that name, or in that folder.

    Args:
        name_or_path: A name of ``list_bundles``, or a path to a bundle's folder.

    Raises:
        UnknownBundleError: If there is none; names the nearest.
    """
    text = os.fspath(name_or_path)
    path = Path(text)
    if (path / "configs" / "metadata.json").is_file():
        return BundleLayout(path.resolve())
    bundles = {bundle.name: bundle for bundle in list_bundles()}
    if text in bundles:
        return bundles[text]
    if path.is_dir():
        raise UnknownBundleError(
            f"bundle must hold configs/metadata.json, got the folder {text}; give a bundle's folder"
        )
    near = difflib.get_close_matches(text, bundles, n=1, cutoff=0.4)
    remedy = f"did you mean {near[0]}?" if near else f"there are: {', '.join(bundles) or 'none'}"
    raise UnknownBundleError(f"bundle must be a known name or a bundle's folder, got {text!r}; {remedy}")
