"""Signatures over the lock, in the OpenSSF model-signing format, with P-256 keys or a private CA.

What is signed is one file, ``vol3d.lock.json``, which names the SHA-256 of every other file. The ``model_signing``
program verifies the same signature: see docs/sharing.md.

``model_signing`` alone accepts more than this site may want: signatures that list files to ignore, an older format
that signs less, certificates past their last day, and every certificate that a CA gave out, also those of web servers.
All of that is refused here before its verdict is asked for.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vol3d.errors import RefusedError
from vol3d.sharing.contents import LOCK_NAME
from vol3d.sharing.refusal import lacking, refused, shorten
from vol3d.sharing.strict_documents import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from vol3d.sharing.trust import Signer, Trust

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PREDICATE = "https://model_signing/signature/v1.0"
_SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


def sign_lock(
    lock_bytes: bytes,
    private_key: Path,
    certificate: Path | None = None,
    chain: Sequence[Path] = (),
    password: bytes | None = None,
) -> bytes:
    """Return the signature of a lock.

    Args:
        lock_bytes: The lock file's content.
        private_key: PEM file of a P-256 key.
        certificate: PEM file of its certificate, to sign under a private CA.
        chain: PEM files of the certificates between that one and the CA.
        password: Of the private key; only without a certificate.

    Raises:
        RefusedError: If the key is not a P-256 key, or does not fit password or certificate.
        RequirementError: If ``model-signing`` is not installed.
    """
    signing = _model_signing().signing
    with tempfile.TemporaryDirectory() as folder:
        signature = Path(folder, "signature")
        try:
            _require_p256(_load_private_key(private_key, password))
            config = signing.Config().set_hashing_config(_hashing_config())
            if certificate is None:
                config.use_elliptic_key_signer(private_key=private_key, password=password)
            else:
                # model_signing cannot read an empty chain; the certificate itself adds nothing to it.
                links = list(chain) or [certificate]
                config.use_certificate_signer(
                    private_key=private_key, signing_certificate=certificate, certificate_chain=links
                )
            config.sign(_lock_folder(folder, lock_bytes), signature)
        except RefusedError:
            raise
        except (ValueError, TypeError, OSError) as error:
            raise _as_refusal("signature.key", "key must be a readable P-256 key that fits", error) from None
        return signature.read_bytes()


def verify_lock(lock_bytes: bytes, signature: bytes | None, bundle_name: str, trust: Trust) -> str:
    """Return the name of the trusted signer whose signature a lock carries.

    Args:
        lock_bytes: The lock file's content.
        signature: The signature file's content, or None.
        bundle_name: Name in the lock; the signer must be trusted for it.
        trust: This site's trust file.

    Raises:
        RefusedError: If there is no signature, or none by a signer who is trusted for this bundle today.
        RequirementError: If ``model-signing`` is not installed.
    """
    if signature is None:
        raise refused("signature.missing", f"{bundle_name} must be signed, got no signature; ask its maker to sign it")
    material = _check_statement(signature, lock_bytes)
    today = datetime.datetime.now(datetime.timezone.utc).date()
    name, signer = _find_signer(material, trust)
    if signer.is_expired(today):
        raise refused("signature.expired", f"trust in {name} must not be expired, got {signer.expires}; renew it")
    if not signer.covers(bundle_name):
        patterns = shorten(", ".join(signer.bundles))
        raise refused("signature.scope", f"{name} must be trusted for {bundle_name}, got {patterns}; extend its trust")
    _verify_cryptographically(lock_bytes, signature, signer)
    return name


def check_public_material(kind: str, pem: str) -> None:
    """Accept only a P-256 public key, or the certificate of a CA.

    Raises:
        RefusedError: If ``pem`` is neither.
        RequirementError: If ``cryptography`` is not installed.
    """
    _model_signing()
    from cryptography import x509  # noqa: PLC0415 - part of the extra `share`
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        if kind == "key":
            _require_p256(serialization.load_pem_public_key(pem.encode()))
        else:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            if not constraints.ca:
                raise refused("trust.ca", "certificate must be one of a CA, got a leaf; give the CA's certificate")
    except RefusedError:
        raise
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise _as_refusal("trust.key", f"{kind} must be a readable PEM file", error) from None


def _check_statement(signature: bytes, lock_bytes: bytes) -> dict[str, Any]:
    """Return the verification material of a signature that says exactly ``vol3d.lock.json has this SHA-256``."""
    bundle = parse_json(signature, "signature")
    try:
        envelope, material = bundle["dsseEnvelope"], bundle["verificationMaterial"]
        statement = parse_json(base64.b64decode(envelope["payload"], validate=True), "signature")
        predicate = statement["predicate"]
        (resource,) = predicate["resources"]
        is_plain = (
            bundle["mediaType"] == _MEDIA_TYPE
            and len(envelope["signatures"]) == 1
            and statement["predicateType"] == _PREDICATE
            and resource["name"] == LOCK_NAME
            and resource["algorithm"] == "sha256"
        )
        serialization, digest = dict(predicate["serialization"]), resource["digest"]
    except RefusedError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise _as_refusal("signature.format", "signature must be in model-signing format", error) from None
    if serialization.pop("ignore_paths", None):
        raise refused("signature.ignore", "signature must ignore no files, got a list of files to ignore; sign again")
    if not is_plain or serialization != _SERIALIZATION or not isinstance(material, dict):
        raise refused("signature.format", "signature must cover the lock and only it, got another statement")
    if digest != hashlib.sha256(lock_bytes).hexdigest():
        raise refused("signature.lock", "signature must be of this lock, got one of another lock; get both again")
    return material


def _find_signer(material: dict[str, Any], trust: Trust) -> tuple[str, Signer]:
    try:
        if "publicKey" in material:
            hint = material["publicKey"]["hint"]
            matches = [(n, s) for n, s in trust.signers.items() if s.kind == "key" and _key_hint(s.pem) == hint]
        else:
            subject = _signing_subject(material)
            matches = [(n, s) for n, s in trust.signers.items() if s.kind == "ca" and s.subject == subject]
    except RefusedError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _as_refusal("signature.format", "signature must name its key or certificate", error) from None
    if not matches:
        raise refused("signature.untrusted", "signer must be in the trust file, got an unknown key; see `trust add`")
    return matches[0]


def _key_hint(pem: str) -> str:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - part of the extra `share`

    key = serialization.load_pem_public_key(pem.encode())
    written = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(written).hexdigest()


def _signing_subject(material: dict[str, Any]) -> str:
    """Return the common name of a signing certificate that is valid today and made for signing code."""
    from cryptography import x509  # noqa: PLC0415 - part of the extra `share`

    chain = material["x509CertificateChain"]["certificates"]
    certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0]["rawBytes"], validate=True))
    now = datetime.datetime.now(datetime.timezone.utc)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        day = certificate.not_valid_after_utc.date()
        raise refused("signature.certificate", f"certificate must be valid today, got one until {day}; sign again")
    _require_p256(certificate.public_key())
    _require_code_signing(certificate)
    (common_name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common_name.value)


def _require_code_signing(certificate: x509.Certificate) -> None:
    from cryptography import x509  # noqa: PLC0415 - part of the extra `share`
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise refused("signature.usage", "certificate must be for code signing, got another use; ask the CA for one")


def _verify_cryptographically(lock_bytes: bytes, signature: bytes, signer: Signer) -> None:
    verifying = _model_signing().verifying
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - part of the extra `share`
    from OpenSSL.crypto import X509StoreContextError  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        material, signature_file = Path(folder, "trusted.pem"), Path(folder, "signature")
        material.write_text(signer.pem, encoding="ascii")
        signature_file.write_bytes(signature)
        config = verifying.Config().set_hashing_config(_hashing_config())
        try:
            if signer.kind == "key":
                config.use_elliptic_key_verifier(public_key=material)
            else:
                config.use_certificate_verifier(certificate_chain=[material])
            config.verify(_lock_folder(folder, lock_bytes), signature_file)
        except RefusedError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _as_refusal("signature.invalid", "signature must verify", error) from None
        except (InvalidSignature, X509StoreContextError) as error:
            raise _as_refusal("signature.invalid", "signature must verify under the trusted key", error) from None


def _lock_folder(folder: str, lock_bytes: bytes) -> Path:
    # Alone in a folder: model_signing hashes all that it finds there.
    target = Path(folder, "lock")
    target.mkdir()
    (target / LOCK_NAME).write_bytes(lock_bytes)
    return target


def _hashing_config() -> Any:
    hashing = _model_signing().hashing
    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    return config.set_ignored_paths(paths=[], ignore_git_paths=False)


def _load_private_key(path: Path, password: bytes | None) -> Any:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - part of the extra `share`

    return serialization.load_pem_private_key(path.read_bytes(), password)


def _require_p256(key: Any) -> None:
    curve = getattr(getattr(key, "curve", None), "name", type(key).__name__)
    if curve != "secp256r1":
        raise refused("signature.curve", f"key must be a P-256 key, got {curve}; make one with openssl (prime256v1)")


def _model_signing() -> Any:
    try:
        import model_signing  # noqa: PLC0415 - an extra
        import OpenSSL  # noqa: F401, PLC0415 - model_signing imports it only when a certificate comes
    except ImportError:
        raise lacking(
            "signature.extra", "package model-signing must be installed, got none; pip install 'vol3d[share]'"
        ) from None
    return model_signing


def _as_refusal(code: str, rule: str, error: Exception) -> RefusedError:
    return refused(code, f"{rule}, got {shorten(' '.join(str(error).split()) or type(error).__name__, 100)}")
