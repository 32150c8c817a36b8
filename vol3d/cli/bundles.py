"""``vol3d bundles``: which bundles are here."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Column, Table

from vol3d.cli.console import out


def bundles(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the bundles of this machine."""
    from vol3d.bundle.catalog import list_bundles

    rows = []
    for layout in list_bundles():
        metadata = layout.metadata()
        rows.append(
            {
                "name": layout.name,
                "version": metadata.get("version", ""),
                "modality": metadata.get("modality", ""),
                "task": metadata.get("task", ""),
                "has_weights": layout.weights_path.is_file(),
                "path": str(layout.root),
            }
        )
    if as_json:
        out.print_json(json.dumps(rows))
        return
    if not rows:
        out.print("no bundles found; set VOL3D_BUNDLES to their folder")
        return
    table = Table(Column("bundle", no_wrap=True), "version", "modality", "weights", "task")
    for row in rows:
        table.add_row(row["name"], row["version"], row["modality"], "yes" if row["has_weights"] else "no", row["task"])
    out.print(table)
