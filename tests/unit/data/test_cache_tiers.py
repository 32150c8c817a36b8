"""The disk and memory tiers on their own: budgets, eviction, damaged files."""

import logging
import os
import pickle
import random
import threading
import time

import pytest
import torch

from vol3d.data import disk_tier as disk_tier_module
from vol3d.data.cache_entries import list_entries
from vol3d.data.cache_file import CacheFileError, read_cache_file, read_cache_record, write_cache_file
from vol3d.data.case_key import CaseKey
from vol3d.data.case_packer import pack_case
from vol3d.data.disk_tier import DiskTier
from vol3d.data.memory_tier import MemoryTier
from vol3d.errors import OutputError

NO_KEY = CaseKey("0" * 64, {}, {})


def key_of(number: int) -> str:
    return f"{number:02x}" * 32


def make_case(value: float = 0.0, size: int = 1000):
    return pack_case({"image": torch.rand(size) + value}, {}, NO_KEY)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "entry.case"
    image = torch.randint(-1000, 3000, (7, 8, 9)).float() / 3
    case = pack_case({"image": image, "label": torch.ones(7, 8, 9), "noise": torch.rand(50)}, {}, NO_KEY)
    write_cache_file(path, key_of(1), case, {"fingerprint": "f"})
    return path


def test_case_and_record_come_back_from_the_file(tmp_path):
    source = {"image": torch.rand(4, 5, 6), "empty": torch.empty(0, 3), "label": torch.arange(300) % 5}
    size = write_cache_file(tmp_path / "e.case", key_of(1), pack_case(source, {}, NO_KEY), {"created": 1.5})
    assert size == (tmp_path / "e.case").stat().st_size
    back = read_cache_file(tmp_path / "e.case", key_of(1), is_verified=False).unpack({})
    assert all(torch.equal(back[name], source[name]) for name in source)
    assert read_cache_record(tmp_path / "e.case") == {"created": 1.5}


def test_file_cut_at_any_of_100_random_bytes_is_refused(file):
    content = file.read_bytes()
    generator = random.Random(0)  # noqa: S311
    for length in [0, 1, 8, len(content) - 1, *generator.sample(range(len(content)), 96)]:
        file.write_bytes(content[:length])
        with pytest.raises(CacheFileError, match=r"cache file must .*it is computed anew"):
            read_cache_file(file, key_of(1), is_verified=False)


def test_any_of_300_random_bit_flips_is_refused(file):
    content = file.read_bytes()
    generator = random.Random(1)  # noqa: S311
    for position in generator.sample(range(8 * len(content)), 300):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(CacheFileError, match=r"cache file must .*it is computed anew"):
            read_cache_file(file, key_of(1), is_verified=False)


def test_file_of_another_key_is_refused(file):
    with pytest.raises(CacheFileError, match="cache file must hold the key of its name, got 0101"):
        read_cache_file(file, key_of(2), is_verified=False)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 100, b"\x00" * 4096, b"vol3dcas", b"vol3dcas" + b"\xff" * 64])
def test_damaged_file_of_the_tier_is_logged_in_one_line_and_removed(tmp_path, caplog, content):
    tier = DiskTier(tmp_path, 10**6)
    tier.path(key_of(1)).parent.mkdir()
    tier.path(key_of(1)).write_bytes(content)
    with caplog.at_level(logging.WARNING, "vol3d"):
        assert tier.read(key_of(1)) is None
    (message,) = [record.getMessage() for record in caplog.records]
    assert "computed anew" in message
    assert "\n" not in message
    assert tier.size(key_of(1)) is None


def test_checksum_is_tested_on_the_first_opening_of_each_process_and_after_replacement(tmp_path, monkeypatch):
    tier = DiskTier(tmp_path, 10**6)
    verified = []
    monkeypatch.setattr(
        disk_tier_module,
        "read_cache_file",
        lambda *args, is_verified: verified.append(is_verified) or read_cache_file(*args, is_verified=is_verified),
    )
    tier.write(key_of(1), make_case(), {})
    tier.read(key_of(1))
    tier.read(key_of(1))
    time.sleep(0.02)
    tier.write(key_of(1), make_case(), {})
    tier.read(key_of(1))
    DiskTier(tmp_path, 10**6).read(key_of(1))
    assert verified == [False, True, False, False]


def age(tier: DiskTier, key: str, seconds: float) -> None:
    past = time.time() - seconds
    os.utime(tier.path(key), (past, past))


def test_disk_budget_evicts_what_was_not_read_for_longest(tmp_path):
    size = 5000
    tier = DiskTier(tmp_path, 3 * size)
    for number in (1, 2, 3):
        tier.write(key_of(number), make_case(), {})
        age(tier, key_of(number), 1000 - number)
    tier.read(key_of(1))
    tier.write(key_of(4), make_case(), {})
    assert [tier.size(key_of(number)) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert sum(stat.st_size for _, stat in list_entries(tmp_path)) <= 3 * size


def test_budget_counts_what_other_processes_wrote(tmp_path):
    for number in range(1, 21):
        DiskTier(tmp_path, 25_000).write(key_of(number), make_case(), {})
    assert sum(stat.st_size for _, stat in list_entries(tmp_path)) <= 25_000


def test_case_that_is_evicted_while_it_is_read_stays_whole(tmp_path):
    tier = DiskTier(tmp_path, 10**6)
    image = torch.rand(5000)
    tier.write(key_of(1), pack_case({"image": image}, {}, NO_KEY), {})
    case = tier.read(key_of(1))
    tier.path(key_of(1)).unlink()
    assert torch.equal(case.unpack({})["image"], image)


def test_case_larger_than_the_budget_is_logged_and_not_kept(tmp_path, caplog):
    tier = DiskTier(tmp_path, 1000)
    tier.write(key_of(1), make_case(), {})
    assert tier.size(key_of(1)) is None
    assert "disk_bytes must hold at least one case, got 1000" in caplog.text


def test_files_left_aside_by_a_kill_are_swept_after_an_hour(tmp_path):
    tier = DiskTier(tmp_path, 10**6)
    tier.write(key_of(1), make_case(), {})
    folder = tier.path(key_of(1)).parent
    old, young = folder / ".a.aside", folder / ".b.aside"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    DiskTier(tmp_path, 10**6).write(key_of(2), make_case(), {})
    assert not old.exists()
    assert young.exists()


def test_full_disk_is_logged_and_the_run_goes_on(tmp_path, caplog, monkeypatch):
    tier = DiskTier(tmp_path, 10**6)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_tier_module, "write_cache_file", fail)
    tier.write(key_of(1), make_case(), {})
    assert "cache file must be writable, got No space left on device" in caplog.text


def test_cache_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cache_dir must be writable, got .*file"):
        DiskTier(tmp_path / "file", 10**6)


def test_lock_lets_one_thread_at_a_time_in(tmp_path):
    tier = DiskTier(tmp_path, 10**6)
    inside, most = [], []

    def work():
        with tier.lock(key_of(1)):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


def test_memory_tier_keeps_the_most_recently_used_within_its_budget():
    size = make_case().num_bytes
    tier = MemoryTier(3 * size, torch.device("cpu"))
    for number in (1, 2, 3):
        tier.put(key_of(number), make_case())
    tier.get(key_of(1))
    tier.put(key_of(4), make_case())
    assert [tier.get(key_of(number)) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert tier.num_bytes == 3 * size


def test_memory_tier_counts_a_replaced_case_once():
    tier = MemoryTier(10**6, torch.device("cpu"))
    tier.put(key_of(1), make_case())
    case = tier.put(key_of(1), make_case(size=500))
    assert tier.num_bytes == case.num_bytes


def test_memory_tier_without_budget_keeps_nothing():
    tier = MemoryTier(0, torch.device("cpu"))
    case = make_case()
    assert tier.put(key_of(1), case) is case
    assert len(tier) == 0


def test_spawned_worker_starts_with_an_empty_memory_tier():
    tier = MemoryTier(10**6, torch.device("cpu"))
    tier.put(key_of(1), make_case())
    copy = pickle.loads(pickle.dumps(tier))  # noqa: S301
    assert len(copy) == 0
    copy.put(key_of(1), make_case())
    assert len(copy) == 1
