"""``vol3d cache``: what the case cache holds, why a case hit or missed, and how to empty it."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vol3d.cli.console import out
from vol3d.data.byte_size import format_bytes
from vol3d.data.cache_entries import list_entries
from vol3d.data.cache_folder import default_cache_dir
from vol3d.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from vol3d.data.cache_history import CacheEntry
    from vol3d.data.case_key import CaseKey
    from vol3d.data.transform_fingerprint import TransformFingerprint

app = typer.Typer(help="The cache of preprocessed cases.", no_args_is_help=True)

DAY_S = 86400.0
_DATASET = "vol3d.data.volume_cache_dataset.VolumeCacheDataset"

FolderOption = Annotated[
    Path | None, typer.Option("--cache-dir", metavar="DIR", help="The cache [$VOL3D_CACHE or ~/.cache/vol3d/volumes].")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def info(cache_dir: FolderOption = None, as_json: JsonOption = False) -> None:
    """Say how many cases there are, how large they are and when they were used."""
    folder = cache_dir or default_cache_dir()
    stats = [stat for _, stat in list_entries(folder)]
    used = [stat.st_atime for stat in stats]
    summary: dict[str, Any] = {"folder": str(folder), "num_cases": len(stats), "bytes": sum(s.st_size for s in stats)}
    if used:
        summary |= {"least_recently_used": _day(min(used)), "most_recently_used": _day(max(used))}
    if as_json:
        out.print_json(json.dumps(summary))
        return
    out.print(f"{folder}: {len(stats)} cases, {format_bytes(summary['bytes'])}", markup=False)
    if used:
        out.print(f"used between {summary['least_recently_used']} and {summary['most_recently_used']}", markup=False)


@app.command()
def why(
    case: Annotated[str, typer.Argument(metavar="CASE", help="A scan's path, or with --bundle also a case name.")],
    bundle: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Judge what training this bundle would ask for now.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder of the data set, with --bundle.")
    ] = None,
    cache_dir: FolderOption = None,
) -> None:
    """Say what is cached of a case and which change made each new entry; with --bundle, hit or miss and why."""
    from vol3d.data.cache_history import read_entries

    folder = cache_dir or default_cache_dir()
    entries = read_entries(folder)
    if bundle is None:
        _print_history(Path(case), entries)
        return
    if data is None:
        raise UsageError("--data must be given with --bundle, got none; name the folder of the data set")
    for key, fingerprint in _requests(bundle, data, case):
        _print_verdict(key, fingerprint, entries)


@app.command()
def clear(
    older_than_days: Annotated[
        float, typer.Option("--older-than-days", min=0, help="Keep what was used within so many days.")
    ] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    cache_dir: FolderOption = None,
) -> None:
    """Delete cached cases; the next training computes them again."""
    folder = cache_dir or default_cache_dir()
    limit = time.time() - older_than_days * DAY_S
    doomed = [(path, stat) for path, stat in list_entries(folder) if stat.st_atime <= limit]
    size = format_bytes(sum(stat.st_size for _, stat in doomed))
    if not doomed:
        out.print("nothing to delete")
        return
    if not yes and not typer.confirm(f"delete {len(doomed)} cases ({size}) from {folder}?"):
        raise typer.Exit(1)
    for path, _ in doomed:
        with contextlib.suppress(FileNotFoundError):  # evicted by a training run at this moment
            path.unlink()
    out.print(f"deleted {len(doomed)} cases, {size}", markup=False)


def _print_history(path: Path, entries: list[CacheEntry]) -> None:
    from vol3d.data.content_digest import ContentDigests, path_digest

    contents = {f"file {ContentDigests().digest(path)}"} if path.exists() else set()
    related = [entry for entry in entries if entry.is_related(contents, {path_digest(path)})]
    if not related:
        known = "its content" if contents else "a file that is not there now"
        out.print(f"miss: no entry was made from this path or from {known}")
    for index, entry in enumerate(related):
        is_same = contents & set(entry.contents.values())
        kind = "from the content that it has now" if is_same else "from another content at this path"
        out.print(f"{entry.key[:12]}  {_day(entry.created)}  {format_bytes(entry.num_bytes)}  {kind}", markup=False)
        if index:
            for line in related[index - 1].differences(entry.contents, entry.fingerprint):
                out.print(f"    {line}", markup=False)


def _print_verdict(key: CaseKey, fingerprint: TransformFingerprint, entries: list[CacheEntry]) -> None:
    from vol3d.data.cache_history import explain

    is_hit, reasons = explain(key, fingerprint, entries)
    out.print(f"{'hit' if is_hit else 'miss'}: {key.digest[:12]}", markup=False)
    for line in reasons:
        out.print(f"    {line}", markup=False)


def _requests(bundle: str, data: Path, case: str) -> list[tuple[CaseKey, TransformFingerprint]]:
    """Return what each cached data set of the bundle's training asks for this case."""
    from vol3d.bundle.catalog import find_bundle
    from vol3d.bundle.workflow import open_workflow
    from vol3d.data.case_key import case_key
    from vol3d.data.content_digest import ContentDigests
    from vol3d.data.item_leaves import item_leaves
    from vol3d.data.transform_fingerprint import as_compose, fingerprint_prefix

    parser = open_workflow(find_bundle(bundle), "train", {"dataset_dir": str(data)}).parser
    places = [
        place for place in ("train::dataset", "validate::dataset") if parser.get(f"{place}::_target_") == _DATASET
    ]
    if not places:
        raise ConfigError(f"training of {bundle} must use VolumeCacheDataset, got none; there is nothing to explain")
    wanted = {case, str(Path(case).absolute())}
    found = []
    for place in places:
        fingerprint = fingerprint_prefix(as_compose(parser.get_parsed_content(f"{place}::transform")))
        for item in parser.get_parsed_content(f"{place}::data"):
            if wanted & {str(leaf) for _, leaf in item_leaves(item)}:
                found.append((case_key(item, fingerprint, ContentDigests()), fingerprint))
    if not found:
        raise UsageError(f"CASE must be in the data set, got {case}; give a case name or a path below {data}")
    return found


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
