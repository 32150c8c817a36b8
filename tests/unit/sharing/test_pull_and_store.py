"""Pull installs what was signed, the store keeps it whole, and tampering is refused."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import pytest
from sharing_bundles import NAME, KeyPair, Site, add_script, make_bundle, make_key, signer_for, tree_of

from vol3d.errors import IncompleteError, RefusedError, RequirementError, Vol3dError
from vol3d.sharing.admit import admit_bundle, find_installed
from vol3d.sharing.pack import pack_bundle, sign_archive
from vol3d.sharing.pull import Pulled, PullOptions, pull
from vol3d.sharing.remote import FolderRemote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vol3d.sharing.archive import Head
    from vol3d.sharing.lock import LockedFile


class Share:
    """A folder remote to which signed versions are added."""

    def __init__(self, folder: Path, key: KeyPair) -> None:
        self.folder, self.key = folder, key
        (folder / "remote").mkdir(parents=True)
        self.remote = FolderRemote(folder / "remote")

    def publish(
        self, version: str, change: Callable[[Path], object] = lambda _: None, level: str = "data-only"
    ) -> Path:
        root = make_bundle(self.folder / f"own-{version}", version, weights_seed=None)
        change(root)
        packed = pack_bundle(root, self.folder, level).path
        sign_archive(packed, self.key.private)
        self.remote.push(packed)
        return packed


@pytest.fixture
def share(tmp_path: Path, key: KeyPair) -> Share:
    return Share(tmp_path / "share", key)


def get(share: Share, site: Site, title: str = NAME, **options: object) -> Pulled:
    return pull(share.remote, title, site.store, site.trust, PullOptions(**options))  # type: ignore[arg-type]


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def test_pull_installs_the_newest_version(share: Share, site: Site) -> None:
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        share.publish(version)
    pulled = get(share, site)
    assert (pulled.lock.version, pulled.signer) == ("1.10.0", "site-0")
    assert find_installed(NAME) == find_installed(f"{NAME}@1.10.0") == pulled.path
    assert pulled.path.name == NAME


def test_pulled_bundle_holds_the_files_of_its_maker(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    pulled = get(share, site)
    own = share.folder / f"own-1.0.0/{NAME}"
    found = tree_of(pulled.path)
    assert {path: content for path, content in tree_of(own).items() if path != "models"}.items() <= found.items()
    assert set(found) - set(tree_of(own)) == {"vol3d.lock.json", "vol3d.lock.sig", "configs/inference.json"}


def test_second_pull_fetches_nothing(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    assert get(share, site).fetched_bytes > 0
    assert get(share, site).fetched_bytes == 0


def test_next_version_fetches_only_what_changed(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    get(share, site)
    share.publish("1.0.1")
    pulled = get(share, site)
    assert pulled.fetched_bytes == sum(f.size for f in pulled.lock.files if f.path == "configs/metadata.json")


def test_use_goes_back_to_an_older_version(share: Share, site: Site) -> None:
    for version in ("1.0.0", "1.1.0"):
        share.publish(version)
        get(share, site)
    site.store.use(f"{NAME}@1.0.0")
    assert site.store.current(NAME) == "1.0.0"
    assert admit_bundle(site.store.find(NAME), home=site.home).level == "data-only"


def test_older_version_than_seen_is_refused_even_after_it_was_removed(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    share.publish("1.1.0")
    get(share, site)
    site.store.remove(f"{NAME}@1.1.0")
    with pytest.raises(RefusedError, match=r"pull\.rollback.*1\.1\.0"):
        get(share, site, f"{NAME}@1.0.0")
    assert get(share, site, f"{NAME}@1.0.0", allow_older=True).lock.version == "1.0.0"


def test_version_with_another_content_than_seen_is_refused(share: Share, site: Site, tmp_path: Path) -> None:
    share.publish("1.0.0")
    get(share, site)
    other = Share(tmp_path / "other", share.key)
    other.publish("1.0.0", lambda root: edit(root / "docs/README.md", "tests", "other tests"))
    with pytest.raises(RefusedError, match=r"pull\.moved"):
        get(other, site)


def test_lock_id_can_be_pinned(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    with pytest.raises(RefusedError, match=r"pull\.pinned"):
        get(share, site, lock_id="0" * 64)


def test_remote_that_answers_with_an_older_version_is_refused(share: Share, site: Site) -> None:
    old = share.publish("1.0.0")
    shutil.copy(old, share.remote.folder / f"{NAME}-2.0.0.v3b")
    with pytest.raises(RefusedError, match=r"pull\.title.*2\.0\.0.*1\.0\.0"):
        get(share, site)


def test_push_of_another_bundle_under_a_known_version_is_refused(share: Share, tmp_path: Path) -> None:
    share.publish("1.0.0")
    other = Share(tmp_path / "other", share.key).publish("1.0.0", lambda r: edit(r / "LICENSE", "2.0", "3.0"))
    with pytest.raises(RefusedError, match=r"push\.exists"):
        share.remote.push(other)


def test_text_that_names_no_installed_bundle_finds_none(site: Site, tmp_path: Path) -> None:
    for text in (NAME, f"{NAME}@1.0.0", "../x", str(tmp_path), ""):
        assert find_installed(text) is None


def test_bundle_that_is_not_in_the_remote(share: Share, site: Site, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"remote\.missing"):
        get(share, site)
    with pytest.raises(RequirementError, match=r"remote\.folder"):
        FolderRemote(tmp_path / "not-mounted")


def test_two_pulls_at_once_both_succeed(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    results: list[object] = []

    def run() -> None:
        try:
            results.append(get(share, site).lock.version)
        except Vol3dError as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["1.0.0", "1.0.0"]


class Interrupted:
    """A remote that gives a file only up to some byte, or other bytes."""

    def __init__(self, remote: FolderRemote, limit: int | None = None, flip: bool = False) -> None:
        self.remote, self.limit, self.flip, self.given = remote, limit, flip, 0
        self.versions, self.head, self.push = remote.versions, remote.head, remote.push

    def read(self, head: Head, file: LockedFile, offset: int) -> Iterator[bytes]:
        for chunk in self.remote.read(head, file, offset):
            part = chunk if self.limit is None else chunk[: max(0, self.limit - self.given)]
            self.given += len(part)
            yield bytes([part[0] ^ 1]) + part[1:] if self.flip and part else part


def test_pull_that_was_cut_goes_on_where_it_stopped(share: Share, site: Site) -> None:
    share.publish("1.0.0", lambda root: (root / "docs/long.md").write_text("x" * 300_000))
    cut = Interrupted(share.remote, limit=200_000)
    with pytest.raises(IncompleteError, match=r"pull\.short"):
        pull(cut, NAME, site.store, site.trust, PullOptions())
    assert site.store.installed() == []
    total = sum(file.size for file in get_head(share).lock.files)
    assert get(share, site).fetched_bytes == total - 200_000


def get_head(share: Share) -> Head:
    return share.remote.head(NAME, "1.0.0")


def test_content_that_the_remote_changed_is_refused_and_not_kept(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    with pytest.raises(RefusedError, match=r"pull\.content"):
        pull(Interrupted(share.remote, flip=True), NAME, site.store, site.trust, PullOptions())
    assert not list(site.store.blobs.iterdir())
    assert get(share, site).lock.version == "1.0.0"


def test_wrong_bytes_of_an_earlier_pull_are_fetched_anew(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    file = get_head(share).lock.files[0]
    site.store.blobs.mkdir(parents=True)
    (site.store.blobs / f"{file.sha256}.part").write_bytes(b"?")
    (site.store.blobs / get_head(share).lock.files[1].sha256).write_bytes(b"damaged")
    assert get(share, site).lock.version == "1.0.0"


def test_gc_frees_what_no_bundle_needs(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    share.publish("1.1.0", lambda root: edit(root / "LICENSE", "2.0", "3.0"))
    get(share, site, f"{NAME}@1.0.0")
    get(share, site)
    site.store.remove(f"{NAME}@1.0.0")
    assert site.store.collect_garbage() > 0
    assert admit_bundle(site.store.find(NAME), home=site.home).is_stored
    with pytest.raises(RefusedError, match=r"store\.missing"):
        site.store.find(f"{NAME}@1.0.0")


def test_current_version_is_not_removed_while_there_are_others(share: Share, site: Site) -> None:
    for version in ("1.0.0", "1.1.0"):
        share.publish(version)
        get(share, site)
    with pytest.raises(RefusedError, match=r"store\.current"):
        site.store.remove(f"{NAME}@1.1.0")


def _older_lock(root: Path, site: Site) -> None:
    older = site.store.find(f"{NAME}@1.0.0")
    shutil.rmtree(root)
    shutil.copytree(older, root)


TAMPERING: dict[str, Callable[[Path, Site], object]] = {
    "config edited": lambda root, _: edit(root / "configs/inference.yaml", "seed=0", "seed=1"),
    "config edited and lock fitted": lambda root, _: (
        edit(root / "LICENSE", "2.0", "3.0"),
        edit(root / "vol3d.lock.json", '"size": 11', '"size": 12'),
    ),
    "file added": lambda root, _: (root / "configs/logging.conf").write_text("[loggers]"),
    "hidden file added": lambda root, _: (root / "configs/.x.yaml").write_text("a: 1"),
    "file removed": lambda root, _: (root / "docs/README.md").unlink(),
    "file replaced by a link": lambda root, _: (
        (root / "LICENSE").unlink(),
        (root / "LICENSE").symlink_to("docs/README.md"),
    ),
    "signature removed": lambda root, _: (root / "vol3d.lock.sig").unlink(),
    "signature of another version": lambda root, site: shutil.copy(
        site.store.find(f"{NAME}@1.0.0") / "vol3d.lock.sig", root / "vol3d.lock.sig"
    ),
    "lock removed": lambda root, _: (root / "vol3d.lock.json").unlink(),
    "valid older version in its place": _older_lock,
    "own code added": lambda root, _: ((root / "scripts").mkdir(), (root / "scripts/x.py").write_text("1")),
    "bytecode added": lambda root, _: (root / "__pycache__").mkdir() or (root / "__pycache__/x.pyc").write_text("1"),
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_with_an_installed_bundle_is_refused(kind: str, share: Share, site: Site) -> None:
    for version in ("1.0.0", "1.1.0"):
        share.publish(version)
        get(share, site)
    root = site.store.find(NAME)
    for path in root.rglob("*"):
        # Break the hard links, so that only the installed file changes.
        if path.is_file():
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
    admit_bundle(root, home=site.home)
    TAMPERING[kind](root, site)
    with pytest.raises(RefusedError):
        admit_bundle(root, home=site.home)


@pytest.mark.parametrize(
    ("path", "position"), [("models/model.pt", -10), ("models/model.safetensors", -10), ("../receipt.json", -60)]
)
def test_tampering_with_installed_weights_is_refused(
    path: str, position: int, weighted_archive: Path, site: Site
) -> None:
    remote = FolderRemote(weighted_archive.parent)
    root = pull(remote, NAME, site.store, site.trust, PullOptions()).path
    admit_bundle(root, home=site.home)
    content = bytearray((root / path).read_bytes())
    content[position] ^= 1
    (root / path).write_bytes(content)
    with pytest.raises(RefusedError):
        admit_bundle(root, home=site.home)


def test_damaged_version_is_replaced_by_the_next_pull(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    root = get(share, site).path
    (root / "LICENSE").write_text("changed in place, and the content store with it")
    with pytest.raises(RefusedError, match=r"file\.size"):
        admit_bundle(root, home=site.home)
    assert get(share, site).fetched_bytes == 11
    admit_bundle(root, home=site.home)


def test_results_below_the_bundle_do_no_harm(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    root = get(share, site).path
    (root / "eval").mkdir()
    (root / "eval/result.nii.gz").write_bytes(b"x")
    assert admit_bundle(root / "." / "", home=site.home).is_stored


def test_bundle_is_refused_once_its_signer_is_removed(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    root = get(share, site).path
    site.trust.remove("site-0")
    site.save_trust()
    with pytest.raises(RefusedError, match=r"signature\.untrusted"):
        admit_bundle(root, home=site.home)


def test_bundle_that_was_signed_anew_runs_under_its_new_signer(share: Share, site: Site, tmp_path: Path) -> None:
    packed = share.publish("1.0.0")
    get(share, site)
    new_key = make_key(tmp_path, "new")
    sign_archive(packed, new_key.private)
    share.remote.push(packed)
    site.trust.remove("site-0")
    site.trust.add("new", signer_for(new_key))
    site.save_trust()
    pulled = get(share, site)
    assert pulled.fetched_bytes == 0
    assert admit_bundle(pulled.path, home=site.home).signer == "new"


def test_bundle_cannot_be_run_at_a_level_without_an_audit(share: Share, site: Site) -> None:
    share.publish("1.0.0")
    with pytest.raises(RefusedError, match=r"admit\.level"):
        admit_bundle(get(share, site).path, level="signed", home=site.home)


def test_bundle_of_the_working_tree_runs_with_warnings(tmp_path: Path, site: Site) -> None:
    root = make_bundle(tmp_path / "own", weights_seed=None)
    (root / "configs/train.yaml").write_text("a: $print(1)\n")
    admitted = admit_bundle(root, home=site.home)
    assert (admitted.is_stored, admitted.level, admitted.must_confine) == (False, "own", False)
    assert [finding.code for finding in admitted.findings] == ["audit.call"]


def test_bundle_with_own_code_needs_signer_and_approval_and_is_confined(share: Share, site: Site, key: KeyPair) -> None:
    packed = share.publish("1.0.0", add_script, "scripts")
    with pytest.raises(RefusedError, match=r"level\.scripts"):
        get(share, site)
    with pytest.raises(RefusedError, match=r"level\.signer"):
        get(share, site, level="scripts")
    site.trust.signers["site-0"] = site.trust.signers["site-0"].__class__(
        **(vars(site.trust.signers["site-0"]) | {"scripts": True})
    )
    with pytest.raises(RefusedError, match=r"level\.approval"):
        get(share, site, level="scripts")
    lock = share.remote.head(NAME, "1.0.0").lock
    site.trust.approve(lock, lock.id)
    site.save_trust()
    root = get(share, site, level="scripts").path
    assert (root / "scripts/own_network.py").read_text() == "VALUE = 1\n"
    assert admit_bundle(root, "scripts", home=site.home).must_confine
    assert not admit_bundle(root, "scripts", unconfined=True, home=site.home).must_confine
    assert packed.is_file()
    with pytest.raises(RefusedError, match=r"level\.scripts"):
        admit_bundle(root, home=site.home)
