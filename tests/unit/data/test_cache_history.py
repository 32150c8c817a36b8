import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged, RandFlipd, ScaleIntensityd

from vol3d.data.cache_history import explain, read_entries
from vol3d.data.volume_cache import VolumeCache


def open_cache(folder, maxv=1.0, probability=0.5):
    transforms = [LoadImaged("image"), ScaleIntensityd("image", maxv=maxv), RandFlipd("image", prob=probability)]
    return VolumeCache(Compose(transforms), {"cache_dir": folder / "cache"})


@pytest.fixture
def item(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).normal(size=(5, 6, 7)))
    return {"image": str(tmp_path / "scan.npy"), "fold": 1}


def verdict(cache, item):
    return explain(cache.key(item), cache.fingerprint, read_entries(cache.disk.folder))


def test_cached_case_is_a_hit_whatever_the_random_part_is(tmp_path, item):
    open_cache(tmp_path).get(item)
    assert verdict(open_cache(tmp_path, probability=0.1), item) == (True, [])


def test_unknown_case_is_a_miss_without_relatives(tmp_path, item):
    assert verdict(open_cache(tmp_path), item) == (False, ["no entry was made from this path or from its content"])


def test_changed_parameter_is_told_from_the_nearest_entry(tmp_path, item):
    open_cache(tmp_path, maxv=1.0).get(item)
    open_cache(tmp_path, maxv=2.0).get({**item, "fold": 2})
    is_hit, reasons = verdict(open_cache(tmp_path, maxv=3.0), item)
    assert not is_hit
    assert reasons == ["transform 1 ScaleIntensityd: scaler.maxv 1.0 -> 3.0"]


def test_changed_bytes_and_values_are_told(tmp_path, item):
    open_cache(tmp_path).get(item)
    np.save(item["image"], np.zeros((5, 6, 7)))
    assert verdict(open_cache(tmp_path), {**item, "fold": 2, "new": 1})[1] == [
        "input fold: value changed",
        "input image: content changed",
        "input new: value was added",
    ]


def test_damaged_entry_is_left_out_with_one_line(tmp_path, item, caplog):
    cache = open_cache(tmp_path)
    cache.get(item)
    path = cache.disk.path(cache.key(item).digest)
    path.write_bytes(path.read_bytes()[:-1])
    assert read_entries(cache.disk.folder) == []
    assert "cache file must" in caplog.text
