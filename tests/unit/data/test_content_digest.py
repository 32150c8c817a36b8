import hashlib
import os
import time

import pytest

from vol3d.data import content_digest
from vol3d.data.content_digest import ContentDigests
from vol3d.errors import VolumeReadError


@pytest.fixture
def settled(monkeypatch):
    """Files of this test count as old: their digests are remembered at once."""
    monkeypatch.setattr(content_digest, "SETTLE_NS", -(10**12))


@pytest.fixture
def count_hashes(monkeypatch):
    calls = []
    hash_settled = content_digest._hash_settled
    monkeypatch.setattr(content_digest, "_hash_settled", lambda *args: calls.append(args) or hash_settled(*args))
    return calls


def test_digest_of_a_file_is_its_sha256(tmp_path):
    file = tmp_path / "scan.nii"
    file.write_bytes(b"voxels" * 400_000)
    assert ContentDigests().digest(file) == hashlib.sha256(b"voxels" * 400_000).hexdigest()


def test_unchanged_file_is_hashed_once_even_across_processes(tmp_path, settled, count_hashes):
    file = tmp_path / "scan.nii"
    file.write_bytes(b"voxels")
    digests = ContentDigests(tmp_path / "digests")
    first = digests.digest(file)
    assert digests.digest(str(file)) == first
    assert ContentDigests(tmp_path / "digests").digest(file) == first
    assert len(count_hashes) == 1


def test_fresh_file_is_not_remembered(tmp_path, count_hashes):
    file = tmp_path / "scan.nii"
    file.write_bytes(b"voxels")
    digests = ContentDigests(tmp_path / "digests")
    digests.digest(file)
    digests.digest(file)
    assert len(count_hashes) == 2
    assert not (tmp_path / "digests").exists()


def test_file_rewritten_in_place_with_the_same_size_and_mtime_is_noticed(tmp_path, settled):
    file = tmp_path / "scan.nii"
    file.write_bytes(b"voxels")
    digests = ContentDigests(tmp_path / "digests")
    first = digests.digest(file)
    before = file.stat()
    time.sleep(0.02)  # let the clock of the file system tick
    with file.open("r+b") as stream:
        stream.write(b"VOXELS")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    for fresh in (digests, ContentDigests(tmp_path / "digests")):
        assert fresh.digest(file) == hashlib.sha256(b"VOXELS").hexdigest() != first


def test_file_renamed_over_the_old_one_with_the_same_size_and_mtime_is_noticed(tmp_path, settled):
    file, other = tmp_path / "scan.nii", tmp_path / "other.nii"
    file.write_bytes(b"voxels")
    other.write_bytes(b"VOXELS")
    digests = ContentDigests(tmp_path / "digests")
    digests.digest(file)
    stat = file.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)
    assert digests.digest(file) == hashlib.sha256(b"VOXELS").hexdigest()


def test_folder_changes_with_content_name_and_number_of_its_files(tmp_path, settled):
    folder = tmp_path / "series"
    (folder / "sub").mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"one")
    (folder / "sub" / "2.dcm").write_bytes(b"two")
    digests = ContentDigests(tmp_path / "digests")
    seen = [digests.digest(folder)]
    (folder / "1.dcm").rename(folder / "0.dcm")
    seen.append(digests.digest(folder))
    (folder / "3.dcm").write_bytes(b"three")
    seen.append(digests.digest(folder))
    (folder / "sub" / "2.dcm").write_bytes(b"TWO")
    seen.append(digests.digest(folder))
    assert len(set(seen)) == 4
    (folder / "3.dcm").unlink()
    (folder / "sub" / "2.dcm").write_bytes(b"two")
    (folder / "0.dcm").rename(folder / "1.dcm")
    assert digests.digest(folder) == seen[0]


def test_bytes_moved_between_the_files_of_a_folder_are_noticed(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "a").write_bytes(b"12")
    (folder / "b").write_bytes(b"3")
    first = ContentDigests().digest(folder)
    (folder / "a").write_bytes(b"1")
    (folder / "b").write_bytes(b"23")
    assert ContentDigests().digest(folder) != first


@pytest.mark.parametrize("record", [b"", b"{", b"[1, 2]", b'["x"]', b'["a", "b"]', b"\xff\x00", b"null"])
def test_damaged_record_costs_only_another_hash(tmp_path, settled, record):
    file = tmp_path / "scan.nii"
    file.write_bytes(b"voxels")
    folder = tmp_path / "digests"
    ContentDigests(folder).digest(file)
    (path,) = folder.iterdir()
    path.write_bytes(record)
    assert ContentDigests(folder).digest(file) == hashlib.sha256(b"voxels").hexdigest()


def test_record_names_show_no_name_of_a_patient(tmp_path, settled):
    file = tmp_path / "doe_john.nii"
    file.write_bytes(b"voxels")
    ContentDigests(tmp_path / "digests").digest(file)
    (record,) = (tmp_path / "digests").iterdir()
    assert "doe" not in record.name
    assert b"doe" not in record.read_bytes()


def test_missing_file_is_an_error_with_its_path(tmp_path):
    with pytest.raises(VolumeReadError, match=r"input must be readable, got .*gone\.nii: No such file"):
        ContentDigests().digest(tmp_path / "gone.nii")


def test_file_that_changes_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    file = tmp_path / "scan.nii"
    file.write_bytes(b"voxels")
    signatures = iter(["before", "after"])
    monkeypatch.setattr(content_digest, "file_signature", lambda _: next(signatures))
    with pytest.raises(VolumeReadError, match=r"input must stay as it is while it is read, got changes in .*scan"):
        ContentDigests().digest(file)
