"""``vol3d check``: does a bundle keep what it promises?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vol3d.cli.console import out
from vol3d.cli.options import BundleArgument
from vol3d.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vol3d.bundle.layout import BundleLayout


def check(
    bundle: BundleArgument,
    update_golden: Annotated[
        bool, typer.Option("--update-golden", help="First record the present network's answer in docs/golden.json.")
    ] = False,
) -> None:
    """Check metadata, configs, network, weights and golden answer; one line per finding, exit code 3 if any."""
    from vol3d.bundle.catalog import find_bundle
    from vol3d.bundle.golden_check import check_golden, write_golden
    from vol3d.bundle.metadata_check import check_metadata
    from vol3d.bundle.network_check import check_network
    from vol3d.bundle.properties_check import check_properties
    from vol3d.bundle.weights_check import check_weights

    layout = find_bundle(bundle)
    if update_golden:
        out.print(f"wrote {write_golden(layout)}", markup=False)
    checks: dict[str, Callable[[BundleLayout], list[str]]] = {
        "metadata": check_metadata,
        "properties": check_properties,
        "network": check_network,
        "weights": check_weights,
        "golden": check_golden,
    }
    failed = 0
    for name, find in checks.items():
        findings = _findings(find, layout)
        failed += bool(findings)
        out.print(f"{name}: {_count(findings)}", markup=False)
        for finding in findings:
            out.print(f"  {finding}", markup=False)
    if failed:
        raise typer.Exit(DataError.exit_code)


def _findings(find: Callable[[BundleLayout], list[str]], layout: BundleLayout) -> list[str]:
    """Return what a check found; an error that stops it, such as missing weights, is a finding too."""
    try:
        return find(layout)
    except DataError as error:
        return [str(error)]


def _count(findings: list[str]) -> str:
    return f"{len(findings)} finding{'s' if len(findings) > 1 else ''}" if findings else "ok"
