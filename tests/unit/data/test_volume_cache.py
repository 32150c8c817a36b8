"""What the case cache promises: never stale, never wrong, never a crash."""

import logging
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    RandFlipd,
    RandGaussianNoised,
    ScaleIntensityRanged,
    ToDeviced,
    Transform,
)

from vol3d.data import content_digest, transform_fingerprint
from vol3d.data.cache_entries import list_entries
from vol3d.data.cache_folder import default_cache_dir
from vol3d.data.volume_cache import VolumeCache
from vol3d.errors import ConfigError, DataError, VolumeReadError


class CountingScale(Transform):
    """A deterministic transform that counts its calls."""

    num_calls = 0

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, item):
        type(self).num_calls += 1
        return {**item, "image": item["image"] * self.factor}


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    monkeypatch.setattr(content_digest, "SETTLE_NS", -(10**12))
    monkeypatch.setattr(CountingScale, "num_calls", 0)


@pytest.fixture
def item(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).integers(-1000, 3000, (6, 7, 8)).astype(np.int16))
    return {"image": str(tmp_path / "scan.npy"), "fold": 1}


def transforms(a_max=1000.0, factor=2.0, probability=0.5):
    return Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            ScaleIntensityRanged("image", a_min=-1000, a_max=a_max, b_min=0, b_max=1),
            CountingScale(factor),
            RandFlipd("image", prob=probability),
            RandGaussianNoised("image", prob=probability),
        ]
    )


def open_cache(tmp_path, transform=None, **options):
    return VolumeCache(transform or transforms(), {"cache_dir": tmp_path / "cache", **options})


def computations(tmp_path, item, transform=None, **options):
    """Return how often the case is computed when a new process asks for it, and the case."""
    before = CountingScale.num_calls
    case = open_cache(tmp_path, transform, **options).get(item)
    return CountingScale.num_calls - before, case


def expected(item, transform=None):
    compose = transform or transforms()
    return compose(item, end=4)["image"].as_tensor()


def test_second_process_finds_what_the_first_computed(tmp_path, item):
    first, fresh = computations(tmp_path, item)
    second, cached = computations(tmp_path, item)
    assert (first, second) == (1, 0)
    assert torch.equal(cached["image"].as_tensor(), fresh["image"].as_tensor())
    assert torch.equal(cached["image"].as_tensor(), expected(item))


def test_changed_random_part_hits(tmp_path, item):
    computations(tmp_path, item)
    assert computations(tmp_path, item, transforms(probability=0.9))[0] == 0


@pytest.mark.parametrize("change", [{"a_max": 900.0}, {"factor": 3.0}])
def test_changed_parameter_misses_and_gives_the_new_result(tmp_path, item, change):
    computations(tmp_path, item)
    num_computed, case = computations(tmp_path, item, transforms(**change))
    assert num_computed == 1
    assert torch.equal(case["image"].as_tensor(), expected(item, transforms(**change)))


def test_changed_order_misses(tmp_path, item):
    computations(tmp_path, item)
    swapped = transforms()
    swapped.transforms = [swapped.transforms[index] for index in (0, 1, 3, 2, 4, 5)]
    assert computations(tmp_path, item, swapped)[0] == 1


def test_changed_library_version_misses(tmp_path, item, monkeypatch):
    computations(tmp_path, item)
    monkeypatch.setattr(transform_fingerprint, "library_versions", lambda: {"monai": "1.6.2"})
    assert computations(tmp_path, item)[0] == 1


def test_changed_value_of_the_item_misses(tmp_path, item):
    computations(tmp_path, item)
    num_computed, case = computations(tmp_path, {**item, "fold": 2})
    assert num_computed == 1
    assert case["fold"] == 2


@pytest.mark.parametrize("is_renamed", [True, False])
def test_file_replaced_at_the_same_path_with_the_same_size_and_mtime_misses(tmp_path, item, is_renamed):
    cache = open_cache(tmp_path)
    cache.get(item)
    before = Path(item["image"]).stat()
    time.sleep(0.02)
    other = tmp_path / "other.npy"
    np.save(other, np.zeros((6, 7, 8), np.int16))
    if is_renamed:
        other.replace(item["image"])
    else:
        shutil.copyfile(other, item["image"])
    os.utime(item["image"], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Path(item["image"]).stat().st_size == before.st_size
    zeros = expected(item)
    assert torch.equal(cache.get(item)["image"].as_tensor(), zeros)
    num_computed, case = computations(tmp_path, item)
    assert num_computed == 0  # the running cache has just computed it
    assert torch.equal(case["image"].as_tensor(), zeros)


def test_moved_data_set_hits_and_names_its_new_place(tmp_path, item):
    computations(tmp_path, item)
    moved = {**item, "image": shutil.move(item["image"], tmp_path / "moved.npy")}
    num_computed, case = computations(tmp_path, {**moved, "image": str(moved["image"])})
    assert num_computed == 0
    assert case["image"].meta["filename_or_obj"] == str(tmp_path / "moved.npy")


def entry_of(tmp_path):
    (entry,) = (tmp_path / "cache").glob("??/*.case")
    return entry


def test_entry_cut_at_any_of_100_random_bytes_is_computed_anew_with_one_line(tmp_path, item, caplog):
    _, fresh = computations(tmp_path, item)
    content = entry_of(tmp_path).read_bytes()
    for length in random.Random(0).sample(range(len(content)), 100):  # noqa: S311
        entry_of(tmp_path).write_bytes(content[:length])
        caplog.clear()
        with caplog.at_level(logging.WARNING, "vol3d"):
            num_computed, case = computations(tmp_path, item)
        assert num_computed == 1
        assert len([record for record in caplog.records if record.name.startswith("vol3d")]) == 1
        assert torch.equal(case["image"].as_tensor(), fresh["image"].as_tensor())
    assert entry_of(tmp_path).stat().st_size == len(content)


def test_flipped_bit_is_computed_anew(tmp_path, item, caplog):
    _, fresh = computations(tmp_path, item)
    content = bytearray(entry_of(tmp_path).read_bytes())
    content[len(content) // 2] ^= 8
    entry_of(tmp_path).write_bytes(content)
    num_computed, case = computations(tmp_path, item)
    assert num_computed == 1
    assert "checksum" in caplog.text
    assert torch.equal(case["image"].as_tensor(), fresh["image"].as_tensor())


def test_entry_of_another_case_under_this_name_is_computed_anew(tmp_path, item, caplog):
    computations(tmp_path, item)
    entry = entry_of(tmp_path)
    other = tmp_path / "other"
    computations(other, {**item, "fold": 7})
    shutil.copyfile(entry_of(other), entry)
    num_computed, case = computations(tmp_path, item)
    assert num_computed == 1
    assert case["fold"] == 1
    assert "cache file must hold the key of its name" in caplog.text


def test_same_content_under_a_name_that_went_into_the_case_is_not_mixed_up(tmp_path, item):
    copy = {**item, "image": shutil.copyfile(item["image"], tmp_path / "other.npy")}
    copy["image"] = str(copy["image"])

    def named(image):
        return {"image": image, "out": f"seg_{Path(image.meta['filename_or_obj']).name}"}

    transform = Compose([LoadImaged("image"), Lambdad("image", named)])
    cache = open_cache(tmp_path, transform)
    assert cache.get(item)["image"]["out"] == "seg_scan.npy"
    assert cache.get(copy)["image"]["out"] == "seg_other.npy"
    assert open_cache(tmp_path, transform).get(item)["image"]["out"] == "seg_scan.npy"


def test_changing_a_case_in_place_does_not_change_the_cache(tmp_path, item):
    cache = open_cache(tmp_path)
    for _ in range(3):  # computed, from RAM, from RAM
        case = cache.get(item)
        assert torch.equal(case["image"].as_tensor(), expected(item))
        case["image"].zero_()
    fresh = open_cache(tmp_path, ram_bytes=0)
    for _ in range(2):  # from disk twice
        case = fresh.get(item)
        assert torch.equal(case["image"].as_tensor(), expected(item))
        case["image"].zero_()


def test_ram_tier_serves_without_disk(tmp_path, item):
    cache = open_cache(tmp_path, disk_bytes=0)
    assert cache.disk is None
    for _ in range(3):
        cache.get(item)
    assert CountingScale.num_calls == 1
    assert not (tmp_path / "cache").exists()


def test_device_tier_holds_and_returns_tensors_on_its_device(tmp_path, item):
    cache = open_cache(tmp_path, device="cpu", ram_bytes=0)
    assert len(cache.memory_tiers) == 2
    for _ in range(2):
        image = cache.get(item)["image"]
        assert image.device == torch.device("cpu")
        assert torch.equal(image.as_tensor(), expected(item))
    assert [len(tier) for tier in cache.memory_tiers] == [1, 0]


def test_tensor_keeps_the_device_of_its_transform(tmp_path, item):
    transform = Compose([LoadImaged("image"), ToDeviced("image", device="meta")])
    cache = open_cache(tmp_path, transform)
    with pytest.raises((DataError, NotImplementedError)):
        cache.get(item)


def test_deterministic_part_alone_may_be_a_plain_list(tmp_path, item):
    cache = open_cache(tmp_path, transforms().transforms[:4])
    assert torch.equal(cache.get(item)["image"].as_tensor(), expected(item))
    case = cache.get(item)
    assert cache.apply_random(case) is case


def test_cache_shows_no_name_of_a_patient(tmp_path):
    path = tmp_path / "doe_john.npy"
    np.save(path, np.ones((5, 6, 7)))
    item = {"image": str(path), "patient": "DOE^JOHN"}
    computations(tmp_path, item)
    names = [str(found.relative_to(tmp_path)) for found in (tmp_path / "cache").rglob("*")]
    contents = [found.read_bytes().lower() for found in (tmp_path / "cache").rglob("*") if found.is_file()]
    assert names
    assert not any("doe" in name for name in names)
    assert not any(b"doe" in content for content in contents)


def test_failing_file_is_named_with_the_reason(tmp_path):
    path = tmp_path / "broken.npy"
    path.write_bytes(b"no array")
    with pytest.raises(VolumeReadError, match=r"case must pass the deterministic transforms, got .* for .*broken\.npy"):
        open_cache(tmp_path).get({"image": str(path)})


def test_missing_file_is_named(tmp_path):
    with pytest.raises(VolumeReadError, match=r"got .* for .*gone\.npy"):
        open_cache(tmp_path).get({"image": str(tmp_path / "gone.npy")})


def test_file_that_changes_while_it_is_read_is_not_cached(tmp_path, item):
    def rewrite(image):
        np.save(item["image"], np.zeros((6, 7, 8), np.int16))
        return image

    cache = open_cache(tmp_path, Compose([LoadImaged("image"), Lambdad("image", rewrite)]))
    with pytest.raises(VolumeReadError, match="the files changed while they were read"):
        cache.get(item)
    assert not list((tmp_path / "cache").glob("??/*.case"))


def test_unknown_option_is_refused():
    with pytest.raises(ConfigError, match=r"cache option must be one of cache_dir, .*got cache_gb"):
        VolumeCache(transforms(), {"cache_gb": 3})


def test_entry_that_cannot_be_read_is_computed_anew(tmp_path, item, monkeypatch, caplog):
    computations(tmp_path, item)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vol3d.data.disk_tier.read_cache_file", refuse)
    assert computations(tmp_path, item)[0] == 1
    assert "cache file must be readable, got Permission denied" in caplog.text


def test_folder_without_write_permission_costs_only_time(tmp_path, item, monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vol3d.data.disk_tier.write_cache_file", refuse)
    num_computed, case = computations(tmp_path, item)
    assert num_computed == 1
    assert torch.equal(case["image"].as_tensor(), expected(item))
    assert "cache file must be writable" in caplog.text


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VOL3D_CACHE", raising=False)
    assert default_cache_dir() == tmp_path / "vol3d" / "volumes"
    monkeypatch.setenv("VOL3D_CACHE", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"


def test_disk_tier_is_private_to_its_owner(tmp_path, item):
    computations(tmp_path, item)
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0
    assert list_entries(tmp_path / "cache")
