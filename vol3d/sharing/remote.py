"""Where packed bundles are exchanged: what every remote can do, and the folder remote.

A **folder remote** is a folder of ``.v3b`` files, such as a mounted share or a stick. An **OCI remote** is a container
registry (:mod:`vol3d.sharing.oci_remote`). A remote is never trusted: it may answer anything, at any time.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Protocol

from vol3d.data.atomic_write import atomic_path
from vol3d.sharing.archive import SUFFIX, TRANSFER_BYTES, Head, open_range, read_head, verify_archive
from vol3d.sharing.lock import VERSION, version_key
from vol3d.sharing.refusal import lacking, refused, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vol3d.sharing.lock import LockedFile


class Remote(Protocol):
    """A place to push to and pull from."""

    def versions(self, name: str) -> list[str]:
        """Return the versions of a bundle, oldest first."""

    def head(self, name: str, version: str) -> Head:
        """Return lock and signature of one version."""

    def read(self, head: Head, file: LockedFile, offset: int) -> Iterator[bytes]:
        """Yield the content of a file from ``offset`` on; nothing in it may be trusted."""

    def push(self, archive: Path) -> None:
        """Add a packed bundle; a version that is there with another lock is refused."""


class FolderRemote:
    """A folder of ``.v3b`` files.

    Args:
        folder: The folder.

    Raises:
        RequirementError: If the folder does not exist, for example because a share is not mounted.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise lacking("remote.folder", f"remote must be a folder, got {shorten(str(folder))}; mount or make it")
        self.folder = folder

    def versions(self, name: str) -> list[str]:
        """Return the versions of a bundle, oldest first, by file name."""
        found = [p.name.removeprefix(f"{name}-").removesuffix(SUFFIX) for p in self.folder.glob(f"{name}-*{SUFFIX}")]
        return sorted((v for v in found if VERSION.fullmatch(v)), key=version_key)

    def head(self, name: str, version: str) -> Head:
        """Return lock and signature of one version.

        Raises:
            RefusedError: If there is no such file, or it is not a packed bundle.
        """
        return read_head(self._path(name, version))

    def read(self, head: Head, file: LockedFile, offset: int) -> Iterator[bytes]:
        """Yield the content of a file from ``offset`` on."""
        with open_range(self._path(head.lock.name, head.lock.version), head, file, offset) as stream:
            while chunk := stream.read(TRANSFER_BYTES):
                yield chunk

    def push(self, archive: Path) -> None:
        """Copy a packed bundle into the folder; it appears whole or not at all.

        Raises:
            RefusedError: If this version is there already with another lock.
        """
        head = verify_archive(archive)
        target = self._path(head.lock.name, head.lock.version, must_exist=False)
        if target.exists() and read_head(target).lock_bytes != head.lock_bytes:
            raise refused("push.exists", f"{head.lock.title} must be new, got another bundle there; raise the version")
        with atomic_path(target) as aside:
            shutil.copyfile(archive, aside)

    def _path(self, name: str, version: str, *, must_exist: bool = True) -> Path:
        path = self.folder / f"{name}-{version}{SUFFIX}"
        if must_exist and not path.is_file():
            raise refused("remote.missing", f"{name}@{version} must be in the remote, got no {path.name}; see its list")
        return path
