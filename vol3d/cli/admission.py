"""The gate in front of ``predict``, ``train`` and ``evaluate``: which bundle is meant, and may it run here?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vol3d.cli.console import err
from vol3d.errors import UnknownBundleError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vol3d.bundle.layout import BundleLayout

LevelOption = Annotated[
    str, typer.Option(metavar="LEVEL", help="What a bundle from another site must reach: data-only or scripts.")
]
UnconfinedOption = Annotated[
    bool, typer.Option("--unconfined", help="Run a bundle at level scripts though nothing can confine it.")
]

MAX_WARNINGS = 3
# Of a config that cannot be read at all its own reader says so; a warning before that error would be a second line.
UNREADABLE = {"document.syntax", "document.duplicate", "audit.shape"}


def locate(bundle: str) -> Path:
    """Return the folder of a bundle.

    Args:
        bundle: A name, ``NAME@VERSION`` of a pulled bundle, or a bundle's folder.

    Raises:
        UnknownBundleError: If there is no such bundle.
    """
    from vol3d.bundle.catalog import find_bundle
    from vol3d.sharing.admit import find_installed

    try:
        return find_bundle(bundle).root
    except UnknownBundleError:
        # Asked last, so that a pulled bundle never shadows one of the user's own.
        installed = find_installed(bundle)
        if installed is None:
            raise
        return installed


def admit(path: Path, level: str, unconfined: bool, read: Iterable[Path], write: Iterable[Path]) -> BundleLayout:
    """Return a bundle once it may run; call it before torch is imported.

    A bundle that was pulled from another site is verified against its lock and level before anything of it is parsed;
    one of the user's own is run as it is, with the audit's findings as warnings on stderr.

    Args:
        path: The bundle's folder.
        level: Level that a pulled bundle has to reach.
        unconfined: Run own code of a pulled bundle unconfined.
        read: Inputs of the run.
        write: Output folders of the run; they exist.

    Raises:
        RefusedError: If a pulled bundle is not what its lock says, or does not reach the level.
        RequirementError: If it has to be confined and cannot be.
    """
    from vol3d.bundle.layout import BundleLayout
    from vol3d.sharing.admit import admit_bundle

    admitted = admit_bundle(path, level, unconfined=unconfined)
    findings = [finding for finding in admitted.findings if finding.code not in UNREADABLE]
    for finding in findings[:MAX_WARNINGS]:
        err.print(f"warning: {finding.line()}")
    if len(findings) > MAX_WARNINGS:
        err.print(f"warning: {len(findings)} findings in all; see `vol3d share check {path} --explain`")
    admitted.confine(read, write)
    return BundleLayout(admitted.path)
