"""Locks and archives have one spelling; every other byte is refused."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vol3d.errors import RefusedError
from vol3d.sharing.archive import read_archive, read_head, verify_archive, write_archive
from vol3d.sharing.contents import check_path, check_paths
from vol3d.sharing.lock import parse_lock, version_key
from vol3d.sharing.pack import pack_bundle

if TYPE_CHECKING:
    from pathlib import Path

SAME_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def test_lock_is_read_back_as_it_was_written(light_archive: Path) -> None:
    lock = read_head(light_archive).lock
    assert parse_lock(lock.to_bytes()) == lock


def test_packing_twice_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    first, second = (pack_bundle(bundle, _folder(tmp_path / name)).path for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_packing_with_weights_twice_gives_the_same_bytes(weighted_bundle: Path, tmp_path: Path) -> None:
    first, second = (pack_bundle(weighted_bundle, _folder(tmp_path / name)).path for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_archive_can_be_unpacked_by_tar(light_archive: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "xf", str(light_archive), "-C", str(tmp_path)], check=True)  # noqa: S607
    lock = read_head(light_archive).lock
    for file in lock.files:
        assert (tmp_path / file.path).stat().st_size == file.size
    assert (tmp_path / "vol3d.lock.json").read_bytes() == lock.to_bytes()


def test_archive_of_an_archive_is_the_same_archive(light_archive: Path, tmp_path: Path) -> None:
    contents = {}
    with read_archive(light_archive) as (head, files):
        for file, stream in files:
            contents[file.path] = stream.read(file.size)
    (tmp_path / "files").mkdir()
    for number, content in enumerate(contents.values()):
        (tmp_path / "files" / str(number)).write_bytes(content)
    order = list(contents)
    copy = tmp_path / "copy.v3b"
    write_archive(copy, head, lambda file: (tmp_path / "files" / str(order.index(file.path))).open("rb"))
    assert copy.read_bytes() == light_archive.read_bytes()


@SAME_FILE
@given(st.data())
def test_archive_with_a_changed_byte_is_refused(light_archive: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(light_archive.read_bytes())
    # Outside the signature, whose bytes only a level above integrity looks at.
    head = read_head(light_archive)
    lock_end = 512 + len(head.lock_bytes) + -len(head.lock_bytes) % 512
    signature_size = len(head.signature or b"")
    position = data.draw(
        st.integers(0, len(content) - 1).filter(lambda p: not lock_end + 512 <= p < lock_end + 512 + signature_size)
    )
    content[position] ^= data.draw(st.integers(1, 255))
    changed = tmp_path / "changed.v3b"
    changed.write_bytes(content)
    with pytest.raises(RefusedError):
        verify_archive(changed)


@SAME_FILE
@given(st.integers(0, 10_000))
def test_archive_that_was_cut_is_refused(light_archive: Path, tmp_path: Path, left: int) -> None:
    content = light_archive.read_bytes()
    cut = tmp_path / "cut.v3b"
    cut.write_bytes(content[: min(left, len(content) - 1)])
    with pytest.raises(RefusedError):
        verify_archive(cut)


@SAME_FILE
@given(st.binary(max_size=3000))
def test_any_bytes_are_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.v3b"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match="archive"):
        verify_archive(path)


@pytest.mark.parametrize(
    "path",
    [
        "/a",
        "../a",
        "a/../b",
        "a//b",
        "a/",
        ".a",
        "a/.b",
        "-a",
        "a b",
        "a\\b",
        "a\nb",
        "con",
        "a/NUL.txt",
        "a.",
        "é",
        "",
    ],
)
def test_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(RefusedError, match=r"path\.name"):
        check_path(path)


def test_file_cannot_be_a_folder_of_another() -> None:
    with pytest.raises(RefusedError, match=r"path\.clash"):
        check_paths(["a", "a/b"])


def test_versions_are_ordered_by_number() -> None:
    assert sorted(["1.10.0", "1.9", "1.0.0", "1.0"], key=version_key)[-2:] == ["1.9", "1.10.0"]
    assert version_key("1.0") == version_key("1.0.0")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
