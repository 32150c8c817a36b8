"""Attacks by signatures, certificates, levels, trust files and addresses."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attack_archives import after_lock, packed, spell_lock
from attack_registry import ATTACKS, Attack, add, attack
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from sharing_bundles import (
    INFERENCE,
    NAME,
    KeyPair,
    add_script,
    make_authority,
    make_bundle,
    make_key,
    make_site,
    signer_for,
)

from vol3d.sharing.archive import Head, read_head, write_archive
from vol3d.sharing.lock import Lock, parse_lock
from vol3d.sharing.pack import pack_bundle, sign_archive

if TYPE_CHECKING:
    from collections.abc import Callable


def with_signature(change: Callable[[dict[str, Any]], object] | bytes) -> Attack:
    def make(folder: Path) -> list[str]:
        key = make_key(folder)
        path = packed(folder, key)
        make_site(Path(os.environ["VOL3D_HOME"]), key)
        head = read_head(path)
        if isinstance(change, bytes):
            return _with_signature_bytes(path, head, change)
        content = json.loads(head.signature or b"")
        change(content)
        return _with_signature_bytes(path, head, json.dumps(content).encode())

    return make


def _with_signature_bytes(path: Path, head: Head, signature: bytes | None) -> list[str]:
    data = path.read_bytes()
    start = after_lock(data)
    end = start + after_lock(data[start:])
    member_bytes = b""
    if signature is not None:
        info = tarfile.TarInfo("vol3d.lock.sig")
        info.size, info.mode = len(signature), 0o644
        member_bytes = info.tobuf(tarfile.USTAR_FORMAT) + signature + bytes(-len(signature) % 512)
    path.write_bytes(data[:start] + member_bytes + data[end:])
    return ["verify", str(path), "--level", "signed"]


def statement(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    """Edit the signed statement without being able to sign it anew."""

    def edit(content: dict[str, Any]) -> None:
        payload = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
        change(payload)
        content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()

    return edit


for name, code, edit in (
    ("not_json", "document.syntax", b"-----BEGIN"),
    ("empty_object", "signature.format", b"{}"),
    ("list", "signature.format", b"[]"),
    ("two", "signature.format", lambda c: c["dsseEnvelope"]["signatures"].append({"sig": "AAAA"})),
    ("none", "signature.format", lambda c: c["dsseEnvelope"].update(signatures=[])),
    ("no_hint", "signature.format", lambda c: c["verificationMaterial"]["publicKey"].pop("hint")),
    ("no_material", "signature.format", lambda c: c.update(verificationMaterial={})),
    ("media_type", "signature.format", lambda c: c.update(mediaType="x")),
    (
        "zeros",
        "signature.invalid",
        lambda c: c["dsseEnvelope"]["signatures"][0].update(sig=base64.b64encode(bytes(71)).decode()),
    ),
    ("payload_type", "signature.invalid", lambda c: c["dsseEnvelope"].update(payloadType="text/plain")),
    ("spelling", "signature.invalid", statement(len)),
    (
        "ignore_list",
        "signature.ignore",
        statement(lambda s: s["predicate"]["serialization"].update(ignore_paths=["configs"])),
    ),
    ("symlinks", "signature.format", statement(lambda s: s["predicate"]["serialization"].update(allow_symlinks=True))),
    (
        "shards",
        "signature.format",
        statement(lambda s: s["predicate"]["serialization"].update(method="shards", shard_size=1)),
    ),
    (
        "old_format",
        "signature.format",
        statement(lambda s: s.update(predicateType="https://model_signing/Digests/v0.1")),
    ),
    ("more_files", "signature.format", statement(lambda s: s["predicate"]["resources"].append({"name": "x"}))),
    ("other_file", "signature.format", statement(lambda s: s["predicate"]["resources"][0].update(name="LICENSE"))),
    ("other_digest", "signature.lock", statement(lambda s: s["predicate"]["resources"][0].update(digest="0" * 64))),
):
    add(f"signature_{name}", code, with_signature(edit))


@attack("signature.missing")
def signature_missing(folder: Path) -> list[str]:
    make_site(Path(os.environ["VOL3D_HOME"]), make_key(folder))
    return ["verify", str(packed(folder)), "--level", "signed"]


@attack("signature.untrusted")
def signature_of_a_stranger(folder: Path) -> list[str]:
    make_site(Path(os.environ["VOL3D_HOME"]), make_key(folder, "friend"))
    return ["verify", str(packed(folder, make_key(folder, "stranger"))), "--level", "signed"]


@attack("signature.invalid")
def signature_of_a_stranger_under_a_friends_hint(folder: Path) -> list[str]:
    friend, stranger = make_key(folder, "friend"), make_key(folder, "stranger")
    make_site(Path(os.environ["VOL3D_HOME"]), friend)
    path = packed(folder, friend)
    hint = json.loads(read_head(path).signature or b"")["verificationMaterial"]
    sign_archive(path, stranger.private)
    head = read_head(path)
    content = json.loads(head.signature or b"") | {"verificationMaterial": hint}
    return _with_signature_bytes(path, head, json.dumps(content).encode())


@attack("signature.lock")
def signature_of_an_older_version(folder: Path) -> list[str]:
    key = make_key(folder)
    make_site(Path(os.environ["VOL3D_HOME"]), key)
    old = read_head(packed(folder, key, version="0.9.0"))
    path = packed(folder, key)
    return _with_signature_bytes(path, read_head(path), old.signature)


@attack("signature.expired")
def signature_under_expired_trust(folder: Path) -> list[str]:
    key = make_key(folder)
    make_site(Path(os.environ["VOL3D_HOME"]), key, expires="2020-01-01")
    return ["verify", str(packed(folder, key)), "--level", "signed"]


@attack("signature.scope")
def signature_for_another_bundle(folder: Path) -> list[str]:
    key = make_key(folder)
    make_site(Path(os.environ["VOL3D_HOME"]), key, bundles=("lobes_*",))
    return ["verify", str(packed(folder, key)), "--level", "signed"]


@attack("signature.curve")
def signature_with_another_curve(folder: Path) -> list[str]:
    key = make_key(folder, "p384", ec.SECP384R1())
    return ["sign", str(packed(folder)), "--key", str(key.private)]


def with_certificate(name: str = "Build host", **changes: Any) -> Attack:
    """Sign with a certificate of a CA that the site trusts for the subject ``Build host``."""

    def make(folder: Path) -> list[str]:
        authority = make_authority(folder)
        path = packed(folder)
        private, certificate = authority.issue(name, **changes)
        sign_archive(path, private, certificate)
        site = make_site(Path(os.environ["VOL3D_HOME"]))
        trusted = changes.get("trusted") or authority
        friend = signer_for(KeyPair(private, trusted.path), kind="ca", subject="Build host")
        site.trust.add("ca", friend)
        site.save_trust()
        return ["verify", str(path), "--level", "signed"]

    return make


add("certificate_of_a_web_server", "signature.usage", with_certificate(usage=ExtendedKeyUsageOID.SERVER_AUTH))
add("certificate_expired", "signature.certificate", with_certificate(days=(-30, -1)))
add("certificate_not_yet", "signature.certificate", with_certificate(days=(1, 30)))
add("certificate_of_another_subject", "signature.untrusted", with_certificate("Other host"))


@attack("signature.invalid")
def certificate_of_another_ca(folder: Path) -> list[str]:
    ours, theirs = make_authority(folder), make_authority(folder, "Evil CA")
    path = packed(folder)
    sign_archive(path, *theirs.issue("Build host"))
    site = make_site(Path(os.environ["VOL3D_HOME"]))
    site.trust.add("ca", signer_for(KeyPair(ours.path, ours.path), kind="ca", subject="Build host"))
    site.save_trust()
    return ["verify", str(path), "--level", "signed"]


def scripted(folder: Path, key: KeyPair) -> Path:
    root = make_bundle(folder / "own", weights_seed=None)
    add_script(root)
    path = pack_bundle(root, folder, "scripts").path
    sign_archive(path, key.private)
    return path


@attack("level.scripts")
def level_code_as_data(folder: Path) -> list[str]:
    key = make_key(folder)
    make_site(Path(os.environ["VOL3D_HOME"]), key)
    return ["verify", str(scripted(folder, key))]


@attack("level.signer")
def level_code_of_a_data_signer(folder: Path) -> list[str]:
    key = make_key(folder)
    make_site(Path(os.environ["VOL3D_HOME"]), key)
    return ["verify", str(scripted(folder, key)), "--level", "scripts"]


@attack("level.approval")
def level_code_not_approved(folder: Path) -> list[str]:
    key = make_key(folder)
    make_site(Path(os.environ["VOL3D_HOME"]), key, scripts=True)
    return ["verify", str(scripted(folder, key)), "--level", "scripts"]


@attack("approve.lock")
def approve_another_lock(folder: Path) -> list[str]:
    return ["approve", str(scripted(folder, make_key(folder))), "--lock-id", "0" * 64]


@attack("audit.")
def level_signed_but_hostile_config(folder: Path) -> list[str]:
    """A trusted signer whose own check was switched off: the receiver audits for itself."""
    key = make_key(folder)
    make_site(Path(os.environ["VOL3D_HOME"]), key)
    root = make_bundle(folder / "own", weights_seed=None)
    path = pack_bundle(root, folder).path
    hostile = INFERENCE + "evil: $__import__('os').system('touch canary')\n"
    contents = {f.path: (root / f.path).read_bytes() for f in read_head(path).lock.files if (root / f.path).exists()}
    contents["configs/inference.yaml"] = hostile.encode()
    _write(path, contents)
    sign_archive(path, key.private)
    return ["verify", str(path)]


def _write(path: Path, contents: dict[str, bytes]) -> None:
    lock = json.loads(read_head(path).lock_bytes)
    lock["files"] = [
        {"path": p, "size": len(c), "sha256": hashlib.sha256(c).hexdigest(), "kind": f["kind"]}
        for f in lock["files"]
        if (p := f["path"]) in contents and (c := contents[p]) is not None
    ]
    data = spell_lock(lock)
    made: Lock = parse_lock(data)
    write_archive(path, Head(made, data, None), lambda file: io.BytesIO(contents[file.path]))


def with_trust(content: str, mode: int = 0o600) -> Attack:
    def make(folder: Path) -> list[str]:
        home = Path(os.environ["VOL3D_HOME"])
        home.mkdir(parents=True)
        (home / "trust.json").write_text(content)
        (home / "trust.json").chmod(mode)
        return ["trust", "list"]

    return make


EMPTY_TRUST = '{"approvals": {}, "format": "vol3d-trust/1", "signers": {}}'
add("trust_writable_by_others", "trust.mode", with_trust(EMPTY_TRUST, 0o666))
add("trust_duplicate_key", "document.duplicate", with_trust(EMPTY_TRUST.replace("{", '{"signers": {},', 1)))
add("trust_other_format", "trust.format", with_trust(EMPTY_TRUST.replace("/1", "/2")))
add("trust_odd_signer", "trust.signer", with_trust(EMPTY_TRUST.replace('"signers": {}', '"signers": {"a": {}}')))
add("trust_odd_approval", "trust.approval", with_trust(EMPTY_TRUST.replace('"approvals": {}', '"approvals": {"a": 1}')))


@attack("trust.key")
def trust_no_key(folder: Path) -> list[str]:
    (folder / "key.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    return ["trust", "add", "a", str(folder / "key.pub"), "--bundles", "*"]


@attack("signature.curve")
def trust_another_curve(folder: Path) -> list[str]:
    return ["trust", "add", "a", str(make_key(folder, "p384", ec.SECP384R1()).public), "--bundles", "*"]


@attack("trust.ca")
def trust_leaf_as_ca(folder: Path) -> list[str]:
    _, certificate = make_authority(folder).issue("Build host")
    return ["trust", "add", "a", str(certificate), "--bundles", "*", "--subject", "Build host"]


for name, title in (("parent", "../../etc"), ("option", "-x"), ("version", f"{NAME}@../1"), ("upper", "NAME")):
    add(f"title_{name}", "store.title", lambda _, title=title: ["use", "--", title])
for name, address in (
    ("password", "oci://user:secret@host/x"),
    ("scheme", "oci+ftp://host/x"),
    ("path", "oci://host/../x"),
):
    add(f"address_{name}", "oci.address", lambda _, address=address: ["pull", NAME, address])
ATTACKS["remote_not_mounted"] = (lambda folder: ["pull", NAME, str(folder / "no")], "remote.folder", 5)
ATTACKS["registry_not_there"] = (lambda _: ["pull", NAME, "oci+http://127.0.0.1:9/x"], "oci.reach", 5)
