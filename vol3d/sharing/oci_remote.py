"""An OCI registry as a remote: ``oci://host[:port]/path``, or ``oci+http://`` for one without TLS.

A bundle ``NAME@VERSION`` is the image ``path/NAME:VERSION``: the lock is its config, each file one blob. The signature
lies under the tag ``sha256-<digest of the manifest>.sig``, since registries before distribution 3 have no referrers.
Every byte is compared with a digest that the caller trusts: the manifest is only a way to find the lock.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import urllib.parse
from typing import TYPE_CHECKING, Any

from vol3d.sharing.archive import MAX_SIGNATURE_BYTES, TRANSFER_BYTES, Head, read_archive
from vol3d.sharing.lock import MAX_LOCK_BYTES, VERSION, LockedFile, parse_lock, version_key
from vol3d.sharing.refusal import incomplete, refused, shorten
from vol3d.sharing.registry_http import RegistryHttp
from vol3d.sharing.strict_documents import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vol3d.sharing.credentials import Credentials

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LOCK_TYPE = "application/vnd.vol3d.lock.v1+json"
FILE_TYPE = "application/vnd.vol3d.file.v1"
SIGNATURE_TYPE = "application/vnd.vol3d.signature.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"

_ADDRESS = re.compile(
    r"oci(?P<plain>\+http)?://(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?P<port>:\d+)?(?P<path>/.*)?"
)
_PATH = re.compile(r"[a-z0-9]+(?:[._/-][a-z0-9]+)*")


def parse_address(address: str) -> tuple[str, str]:
    """Split ``oci://host/path`` into the base URL and the path.

    Raises:
        RefusedError: If the address is no such one, or holds credentials.

    Example:
        >>> parse_address("oci://registry.example:5000/models")
        ('https://registry.example:5000', 'models')
    """
    match = _ADDRESS.fullmatch(address)
    path = (match["path"] or "").strip("/") if match else ""
    if not match or (path and not _PATH.fullmatch(path)):
        # A password somebody wrote into the address must not reach a log.
        raise refused("oci.address", "registry must be given as oci://host[:port]/path without user or password")
    scheme = "http" if match["plain"] else "https"
    return f"{scheme}://{match['host']}{match['port'] or ''}", path


class OciRemote:
    """A registry.

    Args:
        address: ``oci://host[:port]/path``.
        credentials: For its host.
    """

    def __init__(self, address: str, credentials: Credentials) -> None:
        base, self.path = parse_address(address)
        self.http = RegistryHttp(base, credentials)

    def versions(self, name: str) -> list[str]:
        """Return the versions of a bundle, oldest first."""
        try:
            answer = parse_json(self.http.read("GET", f"{self._repository(name)}/tags/list?n=1000"), "tag list")
        except FileNotFoundError:
            return []
        tags = answer.get("tags") if isinstance(answer, dict) else None
        return sorted((t for t in tags or () if isinstance(t, str) and VERSION.fullmatch(t)), key=version_key)

    def head(self, name: str, version: str) -> Head:
        """Return lock and signature of one version.

        Raises:
            RefusedError: If there is no such version, or the registry's answer contradicts itself.
        """
        try:
            manifest_bytes = self._manifest(name, version)
        except FileNotFoundError:
            raise refused("remote.missing", f"{name}@{version} must be in the remote, got no such tag") from None
        manifest = parse_json(manifest_bytes, "manifest")
        lock_bytes = self._small_blob(name, manifest, "config", LOCK_TYPE, MAX_LOCK_BYTES)
        lock = parse_lock(lock_bytes)
        layers = [_layer(file) for file in lock.files]
        if manifest.get("layers") != layers:
            raise refused("oci.manifest", "manifest must list the files of the lock, got another list; report it")
        return Head(lock, lock_bytes, self._signature(name, manifest_bytes))

    def read(self, head: Head, file: LockedFile, offset: int) -> Iterator[bytes]:
        """Yield the content of a file from ``offset`` on; stops early if the connection does."""
        if offset >= file.size:
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            answer = self.http.open("GET", f"{self._repository(head.lock.name)}/blobs/sha256:{file.sha256}", headers)
        except FileNotFoundError:
            raise refused("oci.blob", f"registry must have the blob of {file.path}, got none; push it again") from None
        with answer:
            skip = offset if answer.status == 200 else 0
            try:
                while chunk := answer.read(TRANSFER_BYTES):
                    # A registry that ignores Range begins at the start.
                    kept = chunk[skip:]
                    skip = max(0, skip - len(chunk))
                    if kept:
                        yield kept
            except (http.client.HTTPException, OSError) as error:
                raise incomplete("oci.broken", f"{file.path} must come whole, got {type(error).__name__}") from None

    def push(self, archive: Path) -> None:
        """Upload a packed bundle: blobs first, then its signature, last its tag.

        Raises:
            RefusedError: If this version is there already with another lock, or the archive is damaged.
        """
        with read_archive(archive) as (head, files):
            name = head.lock.name
            self._refuse_other(head)
            for file, stream in files:
                self._upload(name, file.sha256, file.size, stream)
        manifest = _manifest_bytes(_descriptor(LOCK_TYPE, head.lock_bytes), [_layer(file) for file in head.lock.files])
        self._upload_bytes(name, head.lock_bytes)
        if head.signature is not None:
            empty = b"{}"
            self._upload_bytes(name, empty)
            self._upload_bytes(name, head.signature)
            layer = _descriptor(SIGNATURE_TYPE, head.signature)
            self._put_manifest(name, _signature_tag(manifest), _manifest_bytes(_descriptor(EMPTY_TYPE, empty), [layer]))
        self._put_manifest(name, head.lock.version, manifest)

    def _refuse_other(self, head: Head) -> None:
        title = head.lock.title
        if head.lock.version not in self.versions(head.lock.name):
            return
        if self.head(head.lock.name, head.lock.version).lock_bytes != head.lock_bytes:
            raise refused("push.exists", f"{title} must be new, got another bundle there; raise the version")

    def _repository(self, name: str) -> str:
        return f"/v2/{self.path}/{name}" if self.path else f"/v2/{name}"

    def _manifest(self, name: str, reference: str) -> bytes:
        url = f"{self._repository(name)}/manifests/{reference}"
        return self.http.read("GET", url, {"Accept": MANIFEST_TYPE})

    def _put_manifest(self, name: str, reference: str, content: bytes) -> None:
        url = f"{self._repository(name)}/manifests/{reference}"
        self.http.read("PUT", url, {"Content-Type": MANIFEST_TYPE}, content)

    def _signature(self, name: str, manifest_bytes: bytes) -> bytes | None:
        try:
            manifest = parse_json(self._manifest(name, _signature_tag(manifest_bytes)), "signature manifest")
        except FileNotFoundError:
            return None
        layers = manifest.get("layers") if isinstance(manifest, dict) else None
        if not isinstance(layers, list) or len(layers) != 1:
            raise refused("oci.signature", "signature manifest must list one blob, got another number; push it again")
        return self._small_blob(name, {"layer": layers[0]}, "layer", SIGNATURE_TYPE, MAX_SIGNATURE_BYTES)

    def _small_blob(self, name: str, manifest: Any, key: str, media_type: str, limit: int) -> bytes:
        entry = manifest.get(key) if isinstance(manifest, dict) else None
        entry = entry if isinstance(entry, dict) else {}
        digest = entry.get("digest")
        if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise refused("oci.manifest", f"manifest must name a {key} by sha256, got {shorten(digest)}; report it")
        if entry.get("mediaType") != media_type:
            raise refused("oci.manifest", f"{key} must be a {media_type}, got {shorten(entry.get('mediaType'))}")
        try:
            data = self.http.read("GET", f"{self._repository(name)}/blobs/{digest}")
        except FileNotFoundError:
            raise refused("oci.blob", f"registry must have the {key} it names, got none; push it again") from None
        if len(data) > limit or digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
            raise refused("oci.digest", f"{key} must have the digest of the manifest, got another; report it")
        return data

    def _upload_bytes(self, name: str, data: bytes) -> None:
        self._upload(name, hashlib.sha256(data).hexdigest(), len(data), data)

    def _upload(self, name: str, sha256: str, size: int, body: Any) -> None:
        digest = f"sha256:{sha256}"
        try:
            self.http.read("HEAD", f"{self._repository(name)}/blobs/{digest}")
        except FileNotFoundError:
            pass
        else:
            _drain(body)
            return
        with self.http.open("POST", f"{self._repository(name)}/blobs/uploads/", body=b"") as answer:
            location = answer.headers.get("Location", "")
        joint = "&" if urllib.parse.urlsplit(location).query else "?"
        url = f"{location}{joint}digest={digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self.http.read("PUT", url, headers, body)


def _drain(body: Any) -> None:
    if not isinstance(body, bytes):
        while body.read(TRANSFER_BYTES):
            pass


def _layer(file: LockedFile) -> dict[str, Any]:
    title = {"org.opencontainers.image.title": file.path}
    return {"mediaType": FILE_TYPE, "digest": f"sha256:{file.sha256}", "size": file.size, "annotations": title}


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _manifest_bytes(config: dict[str, Any], layers: list[dict[str, Any]]) -> bytes:
    content = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _signature_tag(manifest: bytes) -> str:
    return f"sha256-{hashlib.sha256(manifest).hexdigest()}.sig"
