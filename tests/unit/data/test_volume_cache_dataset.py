import logging
import pathlib
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, ThreadDataLoader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandFlipd,
    RandGaussianNoised,
    ScaleIntensityRanged,
    Transform,
)

from vol3d.data.cache_fill import fill_cache
from vol3d.data.volume_cache import VolumeCache
from vol3d.data.volume_cache_dataset import VolumeCacheDataset
from vol3d.errors import ConfigError, VolumeReadError


class Halve(Transform):
    """A random-free transform that changes its input in place."""

    def __call__(self, item):
        item["image"] *= 0.5
        return item


class InPlaceNoise(RandGaussianNoised):
    """A random transform that spoils the memory that it is given."""

    def __call__(self, item):
        item["image"].fill_(-7)
        item["image"].meta["spoiled"] = True
        return item


@pytest.fixture
def items(tmp_path):
    generator = np.random.default_rng(0)
    for index in range(5):
        np.save(tmp_path / f"scan{index}.npy", generator.integers(-1000, 3000, (6, 7, 8)).astype(np.int16))
    return [{"image": str(tmp_path / f"scan{index}.npy"), "index": index} for index in range(5)]


def transforms(*random):
    return Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            ScaleIntensityRanged("image", a_min=-1000, a_max=1000, b_min=0, b_max=1),
            Halve(),
            *random,
        ]
    )


@pytest.fixture
def options(tmp_path):
    return {"cache_dir": tmp_path / "cache", "progress": False}


def test_items_equal_those_of_monais_cache_dataset(items, options):
    ours, theirs = (
        make(items, transforms(RandFlipd("image", prob=0.5), RandGaussianNoised("image", prob=1.0)), **made_with)
        for make, made_with in ((VolumeCacheDataset, options), (CacheDataset, {"progress": False}))
    )
    assert len(ours) == len(theirs) == 5
    for dataset in (ours, theirs):
        dataset.transform.set_random_state(3)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine["image"].as_tensor(), other["image"].as_tensor())
        assert mine["image"].meta["filename_or_obj"] == other["image"].meta["filename_or_obj"]
        assert mine["index"] == other["index"]


def test_random_transform_that_works_in_place_does_not_spoil_the_cache(items, options):
    dataset = VolumeCacheDataset(items, transforms(InPlaceNoise("image")), **options)
    clean = VolumeCacheDataset(items, transforms(), **options)
    for _ in range(2):
        assert float(dataset[0]["image"].max()) == -7
        assert "spoiled" not in clean[0]["image"].meta
        assert float(clean[0]["image"].max()) > 0


def test_filling_computes_each_case_once_and_the_next_run_none(items, options, caplog):
    with caplog.at_level(logging.INFO, "vol3d"):
        VolumeCacheDataset(items, transforms(), num_workers=3, **options)
        VolumeCacheDataset(items, transforms(), **options)
    assert [record.getMessage() for record in caplog.records if "case cache" in record.getMessage()] == [
        "case cache: 5 cases, 0 found, 5 computed",
        "case cache: 5 cases, 5 found, 0 computed",
    ]


def test_lazy_dataset_computes_what_is_asked_for(items, options):
    dataset = VolumeCacheDataset(items, transforms(), fill_first=False, **options)
    assert not list(options["cache_dir"].glob("??/*.case"))
    dataset[2]
    assert len(list(options["cache_dir"].glob("??/*.case"))) == 1


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_loader_workers_give_what_the_main_process_gives(items, options, method):
    dataset = VolumeCacheDataset(items, transforms(), fill_first=method == "spawn", **options)
    loader = DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context=method)
    images = torch.cat([batch["image"].as_tensor() for batch in loader])
    assert torch.equal(images, torch.stack([dataset[index]["image"].as_tensor() for index in range(5)]))


def test_copy_for_a_spawned_worker_reads_the_disk_tier(items, options):
    dataset = VolumeCacheDataset(items, transforms(), **options)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert torch.equal(copy[3]["image"].as_tensor(), dataset[3]["image"].as_tensor())


def test_thread_loader_gives_what_the_main_process_gives(items, options):
    dataset = VolumeCacheDataset(items, transforms(), **options)
    loader = ThreadDataLoader(dataset, batch_size=5, num_workers=0)
    (batch,) = list(loader)
    assert torch.equal(batch["image"], torch.stack([item["image"] for item in dataset]))


def test_slices_are_subsets(items, options):
    dataset = VolumeCacheDataset(items, transforms(), **options)
    assert [item["index"] for item in dataset[1:3]] == [1, 2]


def test_set_data_serves_and_fills_the_new_items(items, options):
    dataset = VolumeCacheDataset(items[:2], transforms(), **options)
    dataset.set_data(items[2:])
    assert [item["index"] for item in dataset] == [2, 3, 4]
    assert len(list(options["cache_dir"].glob("??/*.case"))) == 5


def test_plain_paths_and_array_transforms_work_too(items, options):
    dataset = VolumeCacheDataset([item["image"] for item in items], Load(), **options)
    assert dataset[0].shape == (6, 7, 8)


class Load(Transform):
    """Load a bare path."""

    def __call__(self, path):
        return torch.from_numpy(np.load(path))


def test_first_transform_random_means_nothing_is_cached(items, options):
    dataset = VolumeCacheDataset(items, Compose([RandFlipd("image", prob=0.0, allow_missing_keys=True)]), **options)
    assert dataset[0] is not None
    assert not list(options["cache_dir"].glob("??/*.case"))


def test_failing_file_is_named_and_the_others_are_kept(items, options, tmp_path):
    (tmp_path / "scan3.npy").write_bytes(b"no array")
    with pytest.raises(VolumeReadError, match=r"for .*scan3\.npy"):
        VolumeCacheDataset(items, transforms(), num_workers=2, **options)


@pytest.mark.parametrize(("name", "advice"), [("cache_rate", "ram_bytes"), ("cache_num", "ram_bytes")])
def test_options_of_monai_that_have_no_meaning_here_are_refused_with_advice(items, name, advice):
    with pytest.raises(ConfigError, match=f"{name} must not be given to VolumeCacheDataset, got 1.0; use {advice}"):
        VolumeCacheDataset(items, transforms(), **{name: 1.0})


def test_unknown_option_is_refused(items):
    with pytest.raises(ConfigError, match="got cache_gigabytes"):
        VolumeCacheDataset(items, transforms(), cache_gigabytes=1)


def test_dataset_is_made_from_a_config(items, tmp_path):
    parser = ConfigParser(
        {
            "items": items,
            "dataset": {
                "_target_": "vol3d.data.volume_cache_dataset.VolumeCacheDataset",
                "data": "@items",
                "transform": {
                    "_target_": "Compose",
                    "transforms": [{"_target_": "LoadImaged", "keys": "image"}],
                },
                "num_workers": 1,
                "progress": False,
                "cache_dir": str(tmp_path / "cache"),
                "ram_bytes": "1MiB",
            },
        }
    )
    assert parser.get_parsed_content("dataset")[4]["index"] == 4


def test_disk_budget_below_the_data_set_is_told(items, options, caplog):
    VolumeCacheDataset(items, transforms(), disk_bytes="12KB", **options)
    assert "disk_bytes must hold the data set to spare its preprocessing, got 12000 for" in caplog.text


def test_cases_in_work_are_bounded_by_memory(items, tmp_path):
    class Recorder:
        disk = None
        running = most = 0

        def fill(self, _):
            self.running += 1
            self.most = max(self.most, self.running)
            self.running -= 1
            return 10, 1000

        def stored_bytes(self, _):
            return None

        def fill_record(self, _):
            return None

    cache = Recorder()
    report = fill_cache(cache, items, num_workers=4, max_bytes=4000, progress=False)
    assert cache.most == 1
    assert (report.num_found, report.num_computed, report.num_bytes) == (0, 5, 50)


def test_progress_shows_only_on_a_terminal_and_when_it_takes_long(items, options, monkeypatch, capsys):
    options["progress"] = True
    VolumeCacheDataset(items, transforms(), **options)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    VolumeCacheDataset(items, transforms(), **options)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("vol3d.data.cache_fill._QUIET_S", -1.0)
    shutil.rmtree(options["cache_dir"] / "filled")
    VolumeCacheDataset(items, transforms(), **options)
    assert "caching" in capsys.readouterr().err


def test_a_filled_data_set_is_found_without_a_key_per_case(items, options, monkeypatch):
    VolumeCacheDataset(items, transforms(), **options)
    asked = []
    monkeypatch.setattr(VolumeCache, "key", lambda *arguments: asked.append(arguments))
    VolumeCacheDataset(items, transforms(), **options)
    assert asked == []


@pytest.mark.parametrize("change", ["content", "parameter", "value", "entry", "record", "order"])
def test_a_data_set_that_is_no_longer_as_it_was_filled_is_looked_through(items, options, change):
    VolumeCacheDataset(items, transforms(), **options)
    entries = sorted(options["cache_dir"].glob("??/*.case"))
    (record,) = (options["cache_dir"] / "filled").iterdir()
    again = transforms()
    if change == "content":
        np.save(items[1]["image"], np.zeros((6, 7, 8), np.int16))
    elif change == "parameter":
        again = Compose([*transforms().transforms, Halve()])
    elif change == "value":
        items[2]["index"] = 7
    elif change == "entry":
        entries[0].unlink()
    elif change == "record":
        record.write_bytes(record.read_bytes()[:-3])
    else:
        items.reverse()
    cache = VolumeCacheDataset(items, again, fill_first=False, **options).cache
    assert cache.fill_record(items).sizes() is None
    VolumeCacheDataset(items, again, **options)
    sizes = [cache.disk.size(cache.key(item).digest) for item in items]
    assert None not in sizes
    assert cache.fill_record(items).sizes() == sizes


def test_a_missing_input_file_is_named_though_nothing_is_remembered_of_it(items, options):
    pathlib.Path(items[0]["image"]).unlink()
    with pytest.raises(VolumeReadError, match=r"scan0\.npy"):
        VolumeCacheDataset(items, transforms(), **options)


def test_without_a_disk_tier_nothing_is_remembered(items, options):
    cache = VolumeCacheDataset(items, transforms(), disk_bytes=0, **options).cache
    assert cache.fill_record(items) is None
