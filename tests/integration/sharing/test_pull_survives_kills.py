"""A pull that is killed at any byte or moment leaves whole versions, and the next pull recovers.

Every test forks a process that pulls version 1.1.0 over an installed 1.0.0 and kills itself (SIGKILL), then looks at
what is left. 40 points by default; ``-m slow`` adds 60 byte offsets and every moment: each file system call.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from sharing_bundles import NAME, KeyPair, Site, make_bundle, make_site

from vol3d.sharing.admit import admit_bundle
from vol3d.sharing.pack import pack_bundle, sign_archive
from vol3d.sharing.pull import PullOptions, pull
from vol3d.sharing.remote import FolderRemote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vol3d.sharing.archive import Head
    from vol3d.sharing.lock import Lock, LockedFile
    from vol3d.sharing.store import Store

NUM_OFFSETS, NUM_MOMENTS = 60, 100
NUM_IN_CI = 20
MAX_EXTRA_BYTES = 64 * 1024
# What changes a file system, and the opening of files.
EVENTS = ("open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "fcntl.flock")


def make_remote(
    tmp_path_factory: pytest.TempPathFactory, key: KeyPair, weights: tuple[int | None, int | None]
) -> FolderRemote:
    folder = tmp_path_factory.mktemp("remote")
    for version, filler, seed in (("1.0.0", "a", weights[0]), ("1.1.0", "b", weights[1])):
        root = make_bundle(tmp_path_factory.mktemp("own"), version, weights_seed=seed)
        (root / "docs/long.md").write_text(filler * 400_000)
        sign_archive(pack_bundle(root, folder).path, key.private)
    return FolderRemote(folder)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory, key: KeyPair) -> FolderRemote:
    return make_remote(tmp_path_factory, key, (None, None))


@pytest.fixture(scope="module")
def weighted_remote(tmp_path_factory: pytest.TempPathFactory, key: KeyPair) -> FolderRemote:
    return make_remote(tmp_path_factory, key, (0, 1))


@dataclass
class Scene:
    """A site with version 1.0.0, and a remote that has 1.1.0 too."""

    remote: FolderRemote
    site: Site

    @property
    def store(self) -> Store:
        return self.site.store

    def pull(self, remote: FolderRemote | KillingRemote) -> int:
        return pull(remote, f"{NAME}@1.1.0", self.store, self.site.trust, PullOptions()).fetched_bytes

    def in_killed_process(self, action: Callable[[], object]) -> bool:
        """Run ``action`` in a forked process; tells whether it was killed before its end."""
        child = os.fork()
        if child == 0:
            try:
                action()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)

    def missing_bytes(self, lock: Lock) -> int:
        there = {path.name.removesuffix(".part"): path.stat().st_size for path in self.store.blobs.iterdir()}
        return sum(max(0, file.size - there.get(file.sha256, 0)) for file in {f.sha256: f for f in lock.files}.values())

    def assert_whole(self) -> None:
        versions = [item.version for item in self.store.installed()]
        assert "1.0.0" in versions
        for item in self.store.installed():
            assert admit_bundle(item.path, home=self.site.home).is_stored
        assert self.store.current(NAME) in versions

    def assert_recovers(self) -> None:
        lock = self.remote.head(NAME, "1.1.0").lock
        missing = self.missing_bytes(lock)
        assert self.pull(self.remote) <= missing + MAX_EXTRA_BYTES
        assert self.store.current(NAME) == "1.1.0"
        assert admit_bundle(self.store.find(NAME), home=self.site.home).lock_id == lock.id
        leftovers = [p.name for p in self.store.root.rglob("*") if p.name.startswith(".") or p.name.endswith(".part")]
        assert leftovers == []


def make_scene(remote: FolderRemote, site: Site) -> Scene:
    pull(remote, f"{NAME}@1.0.0", site.store, site.trust, PullOptions())
    return Scene(remote, site)


@pytest.fixture
def scene(remote: FolderRemote, site: Site) -> Scene:
    return make_scene(remote, site)


@pytest.fixture(scope="module")
def num_events(remote: FolderRemote, key: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> int:
    return count_events(remote, key, tmp_path_factory)


def count_events(remote: FolderRemote, key: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Return how many file system events a whole pull has."""
    folder = tmp_path_factory.mktemp("count")
    scene = make_scene(remote, make_site(folder / "home", key))

    def action() -> None:
        events: list[int] = []
        watch_events(events.append)
        scene.pull(remote)
        (folder / "events").write_text(str(len(events)))

    assert not scene.in_killed_process(action)
    return int((folder / "events").read_text())


class KillingRemote:
    """Kills its process once it has given so many bytes."""

    def __init__(self, remote: FolderRemote, limit: int) -> None:
        self.remote, self.left = remote, limit
        self.versions, self.head, self.push = remote.versions, remote.head, remote.push

    def read(self, head: Head, file: LockedFile, offset: int) -> Iterator[bytes]:
        for chunk in self.remote.read(head, file, offset):
            if len(chunk) > self.left:
                # The network hands on what it has before the plug is pulled.
                yield chunk[: self.left]
                kill_this_process()
            self.left -= len(chunk)
            yield chunk


def watch_events(callback: Callable[[int], object]) -> None:
    """Call ``callback`` with 0, 1, 2, ... right before each file system event of this process from now on."""
    numbers = itertools.count()

    def hook(event: str, _: object) -> None:
        if event in EVENTS:
            callback(next(numbers))

    sys.addaudithook(hook)


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_offset(scene: Scene, fraction: float) -> None:
    total = scene.missing_bytes(scene.remote.head(NAME, "1.1.0").lock)
    limit = int(fraction * (total - 1))
    assert scene.in_killed_process(lambda: scene.pull(KillingRemote(scene.remote, limit)))
    scene.assert_whole()
    scene.assert_recovers()


def kill_at_moment(scene: Scene, number: int) -> None:
    def action() -> None:
        watch_events(lambda event: kill_this_process() if event == number else None)
        scene.pull(scene.remote)

    assert scene.in_killed_process(action)
    scene.assert_whole()
    scene.assert_recovers()


@pytest.mark.parametrize("number", range(NUM_IN_CI))
def test_kill_at_a_byte_leaves_whole_versions(number: int, scene: Scene) -> None:
    kill_at_offset(scene, number / (NUM_IN_CI - 1))


@pytest.mark.parametrize("number", range(NUM_IN_CI))
def test_kill_at_a_moment_leaves_whole_versions(number: int, scene: Scene, num_events: int) -> None:
    kill_at_moment(scene, number * (num_events - 1) // (NUM_IN_CI - 1))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_OFFSETS))
def test_kill_at_any_byte_leaves_whole_versions(number: int, scene: Scene) -> None:
    kill_at_offset(scene, number / (NUM_OFFSETS - 1))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_MOMENTS))
def test_kill_at_any_moment_leaves_whole_versions(number: int, scene: Scene, num_events: int) -> None:
    assert num_events >= NUM_MOMENTS
    kill_at_moment(scene, number * (num_events - 1) // (NUM_MOMENTS - 1))


@pytest.mark.slow
def test_kill_while_weights_are_rebuilt_leaves_whole_versions(
    weighted_remote: FolderRemote, key: KeyPair, tmp_path_factory: pytest.TempPathFactory
) -> None:
    num_events = count_events(weighted_remote, key, tmp_path_factory)
    for number in range(0, num_events, max(1, num_events // 30)):
        home = tmp_path_factory.mktemp("site") / "home"
        kill_at_moment(make_scene(weighted_remote, make_site(home, key)), number)
