"""Options that several subcommands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vol3d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_OWN_OPTIONS = {  # keys that every command fills from its own options: a value in --set would be lost
    "dataset_dir": "--data or INPUT",
    "output_dir": "--output",
    "device": "--device",
    "resume": "--resume",
}

BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A name from `vol3d bundles`, or a bundle's folder.")
]
DataOption = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Folder of the data set, with its dataset.json.")
]
OutputOption = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder for the results.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; never falls back by itself.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the bundle's config; repeat for more."),
]


def config_path(path: Path) -> str:
    """Return a path as a bundle config can hold it: absolute, so that no first character is read as syntax.

    Raises:
        UsageError: If it holds a ``#``, which MONAI's config parser would change.
    """
    from vol3d.data.path_characters import check_path_characters

    text = str(path.absolute())
    check_path_characters(text)
    return text


def assignments(texts: Sequence[str] | None) -> dict[str, Any]:
    """Return the overrides of ``--set`` by key.

    Raises:
        UsageError: If a key has an option of its own.
    """
    from vol3d.bundle.config_layers import parse_assignment

    overrides = dict(parse_assignment(text) for text in texts or [])
    for key in overrides:
        if key in _OWN_OPTIONS:
            raise UsageError(f"--set must not have the key {key}, which has its own option; use {_OWN_OPTIONS[key]}")
    return overrides
