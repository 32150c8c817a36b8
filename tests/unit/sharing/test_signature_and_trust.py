"""Signatures of trusted signers count, in the OpenSSF format, for their bundles, while the trust lasts."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sharing_bundles import KeyPair, Site, make_authority, make_key, make_site, signer_for, write_private

from vol3d.errors import RefusedError
from vol3d.sharing.archive import read_head
from vol3d.sharing.signature import sign_lock, verify_lock
from vol3d.sharing.trust import Trust, load_trust

if TYPE_CHECKING:
    from pathlib import Path

LOCK = b'{"any": "bytes"}\n'


def test_signature_of_a_trusted_key_names_its_signer(key: KeyPair, site: Site) -> None:
    assert verify_lock(LOCK, sign_lock(LOCK, key.private), "tiny_x", site.trust) == "site-0"


def test_signature_with_a_password_protected_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - only here

    pair = make_key(tmp_path)
    private = load_pem_private_key(pair.private.read_bytes(), None)
    write_private(private, pair.private, b"secret")  # type: ignore[arg-type]
    site = make_site(tmp_path / "home", pair)
    assert verify_lock(LOCK, sign_lock(LOCK, pair.private, password=b"secret"), "tiny_x", site.trust) == "site-0"
    with pytest.raises(RefusedError, match=r"signature\.key"):
        sign_lock(LOCK, pair.private)


def test_signature_under_a_private_ca(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    private, certificate = authority.issue("Build host")
    trust = Trust()
    trust.add("ca", signer_for(KeyPair(private, authority.path), kind="ca", subject="Build host"))
    assert verify_lock(LOCK, sign_lock(LOCK, private, certificate), "tiny_x", trust) == "ca"


def test_key_that_does_not_fit_its_certificate_cannot_sign(tmp_path: Path, key: KeyPair) -> None:
    _, certificate = make_authority(tmp_path).issue("Build host")
    with pytest.raises(RefusedError, match=r"signature\.key"):
        sign_lock(LOCK, key.private, certificate)


def test_openssf_program_verifies_what_vol3d_signed(light_archive: Path, key: KeyPair, tmp_path: Path) -> None:
    subprocess.run(["tar", "xf", str(light_archive), "-C", str(tmp_path)], check=True)  # noqa: S607
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(tmp_path)]
    options = ["--signature", str(tmp_path / "vol3d.lock.sig"), "--public_key", str(key.public)]
    arguments = [*command, *options, "--ignore_unsigned_files"]
    assert subprocess.run(arguments, check=False, capture_output=True).returncode == 0
    lock = tmp_path / "vol3d.lock.json"
    lock.write_bytes(lock.read_bytes().replace(b"tiny", b"tiNy"))
    assert subprocess.run(arguments, check=False, capture_output=True).returncode != 0


def test_vol3d_verifies_what_the_openssf_program_signed(light_archive: Path, key: KeyPair, tmp_path: Path) -> None:
    head = read_head(light_archive)
    folder = tmp_path / "lock"
    folder.mkdir()
    (folder / "vol3d.lock.json").write_bytes(head.lock_bytes)
    signature = tmp_path / "signature"
    command = [sys.executable, "-m", "model_signing", "sign", "key", str(folder), "--signature", str(signature)]
    subprocess.run([*command, "--private_key", str(key.private), "--no-ignore-git-paths"], check=True)
    trust = make_site(tmp_path / "home", key).trust
    assert verify_lock(head.lock_bytes, signature.read_bytes(), head.lock.name, trust) == "site-0"


def test_trust_file_is_read_back_as_it_was_written(site: Site) -> None:
    path = site.home / "trust.json"
    assert load_trust(path) == site.trust
    assert path.stat().st_mode & 0o777 == 0o600


def test_missing_trust_file_trusts_nobody(tmp_path: Path) -> None:
    assert load_trust(tmp_path / "trust.json") == Trust()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"bundles": ()}, r"trust\.bundles"),
        ({"bundles": ("../*",)}, r"trust\.bundles"),
        ({"expires": "soon"}, r"trust\.expires"),
        ({"kind": "pgp"}, r"trust\.signer"),
        ({"kind": "ca"}, r"trust\.subject"),
        ({"subject": "x"}, r"trust\.subject"),
    ],
)
def test_signer_with_an_odd_field_is_refused(key: KeyPair, changes: dict[str, object], code: str) -> None:
    with pytest.raises(RefusedError, match=code):
        Trust().add("a", signer_for(key, **changes))


def test_one_key_has_one_name(key: KeyPair) -> None:
    trust = Trust()
    trust.add("a", signer_for(key))
    with pytest.raises(RefusedError, match=r"trust\.twice"):
        trust.add("b", signer_for(key))
    with pytest.raises(RefusedError, match=r"trust\.name"):
        trust.add("a", signer_for(key))


def test_signer_that_was_removed_counts_no_more(key: KeyPair, site: Site) -> None:
    signature = sign_lock(LOCK, key.private)
    site.trust.remove("site-0")
    with pytest.raises(RefusedError, match=r"signature\.untrusted"):
        verify_lock(LOCK, signature, "tiny_x", site.trust)
