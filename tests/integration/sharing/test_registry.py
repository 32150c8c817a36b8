"""A real OCI registry on the loopback address: Debian's docker-registry, started here."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from sharing_bundles import NAME, KeyPair, Site, make_bundle, tree_of

from vol3d.errors import RefusedError, Vol3dError
from vol3d.sharing.admit import admit_bundle
from vol3d.sharing.archive import read_head
from vol3d.sharing.credentials import Credentials
from vol3d.sharing.oci_remote import OciRemote
from vol3d.sharing.pack import pack_bundle, sign_archive
from vol3d.sharing.pull import Pulled, PullOptions, pull
from vol3d.sharing.remote import FolderRemote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = shutil.which("docker-registry")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="docker-registry is not installed (apt-get install docker-registry)"
)

# crypt("secret"): the registry knows bcrypt only.
BCRYPT_OF_SECRET = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"  # noqa: S105
CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http: {{addr: 127.0.0.1:{port}}}
{auth}
"""


@dataclass
class Registry:
    """A running registry with its storage folder."""

    storage: Path
    port: int

    def remote(self, credentials: Credentials | None = None) -> OciRemote:
        return OciRemote(f"oci+http://127.0.0.1:{self.port}/site", credentials or Credentials())

    def blob(self, sha256: str) -> Path:
        return self.storage / f"docker/registry/v2/blobs/sha256/{sha256[:2]}/{sha256}/data"

    def manifest(self, reference: str) -> bytes:
        url = f"http://127.0.0.1:{self.port}/v2/site/{NAME}/manifests/{reference}"
        request = urllib.request.Request(url, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return bytes(answer.read())

    def put_manifest(self, reference: str, content: bytes) -> None:
        url = f"http://127.0.0.1:{self.port}/v2/site/{NAME}/manifests/{reference}"
        kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        request = urllib.request.Request(url, data=content, headers=kind, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - loopback


def start(folder: Path, auth: str = "") -> tuple[Registry, subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "registry.yml"
    config.write_text(CONFIG.format(storage=folder / "storage", port=port, auth=auth))
    process = subprocess.Popen(
        [str(PROGRAM), "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    return Registry(folder / "storage", port), process


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made, process = start(tmp_path)
    yield made
    process.kill()
    process.wait()


def signed(folder: Path, key: KeyPair, version: str = "1.0.0", text: str = "") -> Path:
    root = make_bundle(folder / f"own-{version}-{len(text)}", version, weights_seed=None)
    (root / "docs/long.md").write_text("x" * 200_000 + text)
    out = folder / f"packed-{version}-{len(text)}"
    out.mkdir()
    path = pack_bundle(root, out).path
    sign_archive(path, key.private)
    return path


def get(remote: OciRemote | FolderRemote, site: Site, title: str = NAME) -> Pulled:
    return pull(remote, title, site.store, site.trust, PullOptions())


def test_registry_gives_back_the_same_tree(
    registry: Registry, weighted_archive: Path, site: Site, tmp_path: Path
) -> None:
    registry.remote().push(weighted_archive)
    pulled = get(registry.remote(), site)
    assert pulled.lock == read_head(weighted_archive).lock
    other = Site(tmp_path / "other", site.trust)
    shutil.copytree(weighted_archive.parent, tmp_path / "folder")
    from_folder = get(FolderRemote(tmp_path / "folder"), other)
    derived = "models/model.pt"  # its zip records differ by the name of the temporary file
    mine, theirs = tree_of(pulled.path), tree_of(from_folder.path)
    assert derived in mine
    assert {k: v for k, v in mine.items() if k != derived} == {k: v for k, v in theirs.items() if k != derived}
    admit_bundle(pulled.path, home=site.home)


def test_versions_are_listed_without_signature_tags(registry: Registry, key: KeyPair, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        registry.remote().push(signed(tmp_path, key, version))
    assert registry.remote().versions(NAME) == ["1.0.0", "1.9.0", "1.10.0"]
    assert registry.remote().versions("unknown") == []


def test_pushing_again_is_fine_and_pushing_another_is_refused(registry: Registry, key: KeyPair, tmp_path: Path) -> None:
    path = signed(tmp_path, key)
    registry.remote().push(path)
    registry.remote().push(path)
    with pytest.raises(RefusedError, match=r"push\.exists"):
        registry.remote().push(signed(tmp_path, key, text="other"))


@pytest.mark.parametrize("change", ["altered", "halved", "swapped", "longer"])
def test_damaged_blob_is_refused(registry: Registry, key: KeyPair, site: Site, tmp_path: Path, change: str) -> None:
    path = signed(tmp_path, key)
    registry.remote().push(path)
    file, other = (f for f in read_head(path).lock.files if f.path in ("docs/long.md", "docs/README.md"))
    blob = registry.blob(max(file, other, key=lambda f: f.size).sha256)
    content = blob.read_bytes()
    small = registry.blob(min(file, other, key=lambda f: f.size).sha256).read_bytes()
    blob.write_bytes(
        {
            "altered": b"y" + content[1:],
            "halved": content[: len(content) // 2],
            "swapped": small,
            "longer": content + b"x",
        }[change]
    )
    with pytest.raises(Vol3dError, match=r"pull\.(content|short|size)"):
        get(registry.remote(), site)
    assert site.store.installed() == []
    blob.write_bytes(content)
    assert get(registry.remote(), site).lock.version == "1.0.0"


def test_damaged_lock_blob_is_refused(registry: Registry, key: KeyPair, site: Site, tmp_path: Path) -> None:
    path = signed(tmp_path, key)
    registry.remote().push(path)
    blob = registry.blob(read_head(path).lock.id)
    blob.write_bytes(blob.read_bytes().replace(b"tiny", b"tinY", 1))
    with pytest.raises(RefusedError, match=r"oci\.digest"):
        get(registry.remote(), site)


def test_moved_tag_is_refused(registry: Registry, key: KeyPair, site: Site, tmp_path: Path) -> None:
    registry.remote().push(signed(tmp_path, key))
    get(registry.remote(), site)
    registry.remote().push(signed(tmp_path, key, "2.0.0"))
    registry.put_manifest("1.0.0", registry.manifest("2.0.0"))
    with pytest.raises(RefusedError, match=r"pull\.title"):
        get(registry.remote(), site, f"{NAME}@1.0.0")


def test_tag_moved_to_another_bundle_of_that_version_is_refused(
    registry: Registry, key: KeyPair, site: Site, tmp_path: Path
) -> None:
    registry.remote().push(signed(tmp_path, key))
    get(registry.remote(), site)
    shutil.rmtree(registry.storage / f"docker/registry/v2/repositories/site/{NAME}/_manifests/tags/1.0.0")
    registry.remote().push(signed(tmp_path, key, text="other"))
    with pytest.raises(RefusedError, match=r"pull\.moved"):
        get(registry.remote(), site)


def test_manifest_that_lists_other_files_is_refused(
    registry: Registry, key: KeyPair, site: Site, tmp_path: Path
) -> None:
    registry.remote().push(signed(tmp_path, key))
    content = json.loads(registry.manifest("1.0.0"))
    content["layers"].reverse()
    registry.put_manifest("1.0.0", json.dumps(content).encode())
    with pytest.raises(RefusedError, match=r"oci\.manifest"):
        get(registry.remote(), site)


def test_signature_tag_of_another_version_is_refused(
    registry: Registry, key: KeyPair, site: Site, tmp_path: Path
) -> None:
    for version in ("1.0.0", "2.0.0"):
        registry.remote().push(signed(tmp_path, key, version))
    tags = [f"sha256-{hashlib.sha256(registry.manifest(v)).hexdigest()}.sig" for v in ("1.0.0", "2.0.0")]
    registry.put_manifest(tags[1], registry.manifest(tags[0]))
    with pytest.raises(RefusedError, match=r"signature\.lock"):
        get(registry.remote(), site)


def test_missing_signature_tag_is_refused(registry: Registry, key: KeyPair, site: Site, tmp_path: Path) -> None:
    registry.remote().push(signed(tmp_path, key))
    tag = f"sha256-{hashlib.sha256(registry.manifest('1.0.0')).hexdigest()}.sig"
    shutil.rmtree(registry.storage / f"docker/registry/v2/repositories/site/{NAME}/_manifests/tags/{tag}")
    with pytest.raises(RefusedError, match=r"signature\.missing"):
        get(registry.remote(), site)


def test_pull_goes_on_with_a_range_request(registry: Registry, key: KeyPair, site: Site, tmp_path: Path) -> None:
    path = signed(tmp_path, key)
    registry.remote().push(path)
    lock = read_head(path).lock
    (long,) = [file for file in lock.files if file.path == "docs/long.md"]
    site.store.blobs.mkdir(parents=True)
    (site.store.blobs / f"{long.sha256}.part").write_bytes(b"x" * 150_000)
    assert get(registry.remote(), site).fetched_bytes == sum(file.size for file in lock.files) - 150_000


def test_two_pulls_at_once_both_succeed(registry: Registry, key: KeyPair, site: Site, tmp_path: Path) -> None:
    registry.remote().push(signed(tmp_path, key))
    results: list[object] = []

    def run() -> None:
        try:
            results.append(get(registry.remote(), site).lock.version)
        except Vol3dError as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["1.0.0", "1.0.0"]


def test_registry_with_a_password(key: KeyPair, site: Site, tmp_path: Path) -> None:
    passwords = tmp_path / "htpasswd"
    passwords.write_text(f"ada:{BCRYPT_OF_SECRET}\n")
    registry, process = start(tmp_path, f"auth: {{htpasswd: {{realm: test, path: {passwords}}}}}")
    try:
        registry.remote(Credentials("ada", "secret")).push(signed(tmp_path, key))
        assert get(registry.remote(Credentials("ada", "secret")), site).lock.version == "1.0.0"
        for wrong in (Credentials(), Credentials("ada", "wrong")):
            with pytest.raises(RefusedError, match=r"oci\.denied"):
                get(registry.remote(wrong), site)
    finally:
        process.kill()
        process.wait()
