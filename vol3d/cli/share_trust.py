"""``vol3d share trust`` and ``vol3d share approve``: whom and what this site trusts."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated

import typer

from vol3d.cli.console import out

app = typer.Typer(help="Whose signatures count here.", no_args_is_help=True)

DEFAULT_DAYS = 365


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="A local name for the signer.")],
    pem: Annotated[
        Path,
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="PEM file of a P-256 public key, or of a CA."),
    ],
    bundles: Annotated[list[str], typer.Option("--bundles", help="Pattern of bundle names; repeat for more.")],
    subject: Annotated[str, typer.Option(help="FILE is a CA: common name of the signing certificate.")] = "",
    scripts: Annotated[bool, typer.Option("--scripts", help="Its bundles may bring own code.")] = False,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Trust it for so many days.")] = DEFAULT_DAYS,
) -> None:
    """Trust a signer; compare the fingerprint with its owner over another channel first."""
    from vol3d.sharing.signature import check_public_material
    from vol3d.sharing.store import hash_file
    from vol3d.sharing.trust import Signer, load_trust, share_home

    path = share_home() / "trust.json"
    trust = load_trust(path)
    kind = "ca" if subject else "key"
    text = pem.read_text(encoding="ascii", errors="replace")
    check_public_material(kind, text)
    expires = datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=days)
    trust.add(name, Signer(kind, text, subject, tuple(bundles), scripts, expires.isoformat()))
    trust.save(path)
    out.print(f"{name}: trusted until {expires}; sha256 of the file is {hash_file(pem)[1]}", markup=False)


@app.command(name="list")
def list_signers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """List the trusted signers and the approvals."""
    from vol3d.sharing.trust import load_trust, share_home

    trust = load_trust(share_home() / "trust.json")
    signers = [
        {"name": name, "kind": s.kind, "subject": s.subject, "bundles": s.bundles, "scripts": s.scripts}
        | {"expires": s.expires}
        for name, s in sorted(trust.signers.items())
    ]
    if as_json:
        out.print_json(json.dumps({"signers": signers, "approvals": trust.approvals}))
        return
    for signer in signers:
        out.print("  ".join(f"{key}={value}" for key, value in signer.items()), markup=False)
    for lock_id, entry in sorted(trust.approvals.items()):
        out.print(f"approved {entry['title']} by {entry['by']} on {entry['on']}: {lock_id}", markup=False)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Local name of the signer.")]) -> None:
    """Trust a signer no longer; its installed bundles stop running at once."""
    from vol3d.sharing.trust import load_trust, share_home

    path = share_home() / "trust.json"
    trust = load_trust(path)
    trust.remove(name)
    trust.save(path)
    out.print(f"{name}: removed", markup=False)


def approve(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", exists=True, dir_okay=False, help="A packed bundle whose own code you have read."
        ),
    ],
    lock_id: Annotated[str, typer.Option(help="Its lock id, as `verify` prints it.")],
) -> None:
    """Approve a bundle that brings its own code, after a person has read that code."""
    from vol3d.sharing.archive import verify_archive
    from vol3d.sharing.trust import load_trust, share_home

    path = share_home() / "trust.json"
    trust = load_trust(path)
    lock = verify_archive(bundle).lock
    trust.approve(lock, lock_id)
    trust.save(path)
    out.print(f"{lock.title}: approved at lock id {lock.id}", markup=False)
