"""``vol3d share``: exchange bundles with other sites; see docs/sharing.md."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vol3d.cli import share_trust
from vol3d.cli.console import out

if TYPE_CHECKING:
    from vol3d.sharing.lock import Lock
    from vol3d.sharing.remote import Remote

app = typer.Typer(
    help="Exchange bundles with other sites: check, pack, sign, verify, push, pull.", no_args_is_help=True
)
app.add_typer(share_trust.app, name="trust")
app.command()(share_trust.approve)

ArchiveArgument = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A packed bundle, NAME-VERSION.v3b.")
]
OwnBundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a name from `vol3d bundles`.")
]
TitleArgument = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="An installed bundle.")]
RemoteArgument = Annotated[
    str, typer.Argument(metavar="REMOTE", help="A folder, oci://host[:port]/path or oci+http://host[:port]/path.")
]
LevelOption = Annotated[str, typer.Option("--level", help="integrity, signed, data-only or scripts.")]
TermsOption = Annotated[
    Path | None,
    typer.Option("--private-terms", exists=True, help="File of words that must not leave this site, one a line."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def check(
    bundle: OwnBundleArgument,
    level: LevelOption = "data-only",
    private_terms: TermsOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say for each finding what to write instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check layout, configs, weights, licence, card and leaks of a bundle; runs no code."""
    from vol3d.sharing.check import check_bundle
    from vol3d.sharing.refusal import refuse_findings

    folder = _folder(bundle)
    checked = check_bundle(folder, level, _read_terms(private_terms))
    lines = [finding.line() for finding in checked.findings]
    if explain:
        lines = [f"[{f.code}] {f.where}\n    found:   {f.what}\n    instead: {f.instead}" for f in checked.findings]
    if as_json or checked.findings:
        data = {
            "findings": [finding.as_dict() for finding in checked.findings],
            "files": checked.contents.files,
            "left_out": checked.contents.left_out,
        }
        _report(as_json, data, lines)
    else:
        _report(as_json, {}, [f"{folder.name}: {len(checked.contents.files)} files, no findings"])
    refuse_findings(checked.findings)


@app.command()
def pack(
    bundle: OwnBundleArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the packed bundle.")],
    level: LevelOption = "data-only",
    private_terms: TermsOption = None,
    source: Annotated[str, typer.Option(help="Where the bundle comes from, such as a revision.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Check a bundle and write it as one file, NAME-VERSION.v3b."""
    from vol3d.sharing.pack import pack_bundle

    folder = _folder(bundle)
    output.mkdir(parents=True, exist_ok=True)
    packed = pack_bundle(folder, output, level, _read_terms(private_terms), source)
    lines = [f"{packed.path}", f"lock id {packed.lock.id}", *(f"left out: {path}" for path in packed.left_out)]
    if packed.lock.probe is None:
        lines.append("no probe: the network does not take one volume, or the bundle has no weights or own code")
    _report(as_json, {"path": str(packed.path), "left_out": packed.left_out} | _summary(packed.lock), lines)


@app.command()
def sign(
    file: ArchiveArgument,
    key: Annotated[Path, typer.Option("--key", exists=True, help="PEM file of a P-256 private key.")],
    certificate: Annotated[
        Path | None, typer.Option(exists=True, help="PEM file of its certificate under a private CA.")
    ] = None,
    chain: Annotated[
        list[Path] | None, typer.Option(exists=True, help="Certificates between that one and the CA.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a packed bundle; the key's password comes from VOL3D_KEY_PASSWORD."""
    from vol3d.sharing.pack import sign_archive

    password = os.environ.get("VOL3D_KEY_PASSWORD")
    lock = sign_archive(file, key, certificate, chain or [], password.encode() if password else None)
    _report(as_json, _summary(lock), [f"{lock.title}: signed", f"lock id {lock.id}"])


@app.command()
def verify(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A packed bundle, a folder, or NAME[@VERSION].")],
    level: LevelOption = "data-only",
    probe: Annotated[bool, typer.Option("--probe", help="Run the network on the lock's input as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Verify every byte of a bundle, its signature and its level."""
    from vol3d.sharing.inspection import inspect_bundle

    result = inspect_bundle(bundle, level, run_probe=probe)
    lock = result.verified.lock
    lines = [f"{lock.title}: {level}, {_signed(result.verified.signer)}", f"lock id {lock.id}"]
    if result.probe:
        lines.append(f"probe: {result.probe}")
    data = _summary(lock) | {"level": level, "signer": result.verified.signer, "probe": result.probe}
    _report(as_json, data, lines)


@app.command()
def push(file: ArchiveArgument, remote: RemoteArgument, as_json: JsonOption = False) -> None:
    """Add a packed bundle to a remote."""
    from vol3d.sharing.archive import read_head

    lock = read_head(file).lock
    _open_remote(remote).push(file)
    _report(as_json, _summary(lock), [f"{lock.title}: pushed"])


@app.command()
def pull(
    title: TitleArgument,
    remote: RemoteArgument,
    level: LevelOption = "data-only",
    lock_id: Annotated[str | None, typer.Option(help="The one lock id to accept.")] = None,
    allow_older: Annotated[bool, typer.Option("--allow-older", help="Accept a version older than seen here.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle of a remote and install it here."""
    from vol3d.sharing.pull import PullOptions
    from vol3d.sharing.pull import pull as pull_bundle
    from vol3d.sharing.store import Store
    from vol3d.sharing.trust import load_trust, share_home

    home = share_home()
    trust = load_trust(home / "trust.json")
    pulled = pull_bundle(_open_remote(remote), title, Store(home), trust, PullOptions(level, lock_id, allow_older))
    data = _summary(pulled.lock) | {"path": str(pulled.path), "fetched_bytes": pulled.fetched_bytes}
    lines = [f"{pulled.lock.title}: {level}, {_signed(pulled.signer)}", f"lock id {pulled.lock.id}", str(pulled.path)]
    _report(as_json, data | {"signer": pulled.signer, "level": level}, lines)


@app.command(name="list")
def list_bundles(
    remote: Annotated[str | None, typer.Option(help="List a bundle's versions in this remote instead.")] = None,
    name: Annotated[str, typer.Option(help="The bundle to list in the remote.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the installed bundles, or the versions that a remote has."""
    from vol3d.sharing.store import Store, split_title
    from vol3d.sharing.trust import share_home

    if remote is not None:
        versions = _open_remote(remote).versions(split_title(name)[0])
        _report(as_json, {"name": name, "versions": versions}, [f"{name}@{version}" for version in versions])
        return
    items = Store(share_home()).installed()
    data = [{"name": i.name, "version": i.version, "current": i.is_current, "path": str(i.path)} for i in items]
    _report(as_json, data, [f"{i.name}@{i.version}{' (current)' if i.is_current else ''}  {i.path}" for i in items])


@app.command()
def use(title: TitleArgument, as_json: JsonOption = False) -> None:
    """Let the name mean an installed version, for example to go back to an older one."""
    from vol3d.sharing.inspection import use_version

    use_version(title)
    _report(as_json, {"current": title}, [f"{title}: current"])


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="A", help="A packed bundle or NAME[@VERSION].")],
    new: Annotated[str, typer.Argument(metavar="B", help="A packed bundle or NAME[@VERSION].")],
    as_json: JsonOption = False,
) -> None:
    """Say in words what changed from one bundle to another."""
    from vol3d.sharing.inspection import compare

    lines = compare(old, new)
    _report(as_json, {"changes": lines}, lines)


@app.command()
def remove(title: TitleArgument, as_json: JsonOption = False) -> None:
    """Remove an installed version."""
    from vol3d.sharing.store import Store
    from vol3d.sharing.trust import share_home

    store = Store(share_home())
    with store.locked():
        store.remove(title)
    _report(as_json, {"removed": title}, [f"{title}: removed; `gc` frees its space"])


@app.command()
def gc(as_json: JsonOption = False) -> None:
    """Delete content that no installed bundle needs."""
    from vol3d.sharing.store import Store
    from vol3d.sharing.trust import share_home

    store = Store(share_home())
    with store.locked():
        freed = store.collect_garbage()
    _report(as_json, {"freed_bytes": freed}, [f"{freed} bytes freed"])


def _open_remote(address: str) -> Remote:
    from vol3d.sharing.remote import FolderRemote

    if not address.startswith("oci"):
        return FolderRemote(Path(address))
    from vol3d.sharing.credentials import find_credentials
    from vol3d.sharing.oci_remote import OciRemote, parse_address
    from vol3d.sharing.trust import share_home

    host = parse_address(address)[0].partition("://")[2]
    return OciRemote(address, find_credentials(host, share_home()))


def _read_terms(path: Path | None) -> list[str]:
    if path is None:
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _signed(signer: str | None) -> str:
    return f"signed by {signer}" if signer else "signature not looked at"


def _summary(lock: Lock) -> dict[str, Any]:
    return {"name": lock.name, "version": lock.version, "lock_id": lock.id, "files": len(lock.files)}


def _report(as_json: bool, data: Any, lines: list[str]) -> None:
    if as_json:
        out.print_json(json.dumps(data))
        return
    for line in lines:
        out.print(line, markup=False)


def _folder(bundle: str) -> Path:
    """Return the folder as it is, even if it is no bundle: what it lacks is for the check to say."""
    from vol3d.bundle.catalog import find_bundle

    path = Path(bundle)
    return path.resolve() if path.is_dir() else find_bundle(bundle).root
