"""Processes that are killed, and processes that fill at once; they fork from a program that has imported MONAI."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, random, select, signal, sys, time
from pathlib import Path
import numpy as np, torch
from monai.transforms import Compose, LoadImaged, Lambdad
from vol3d.data import content_digest
from vol3d.data.volume_cache import VolumeCache

content_digest.SETTLE_NS = -(10**12)
torch.set_num_threads(1)
folder = Path(sys.argv[1])
num_kills = int(sys.argv[2])
items = []
for index in range(6):
    np.save(folder / f"{index}.npy", np.random.default_rng(index).normal(size=(20, 30, 40)).astype(np.float32))
    items.append({"image": str(folder / f"{index}.npy")})

def note(image):
    with open(folder / "computed", "a") as log:
        log.write(Path(image.meta["filename_or_obj"]).stem)
    time.sleep(0.05 if num_kills == 0 else 0)
    return image * 2

def open_cache():
    return VolumeCache(Compose([LoadImaged("image"), Lambdad("image", note)]), {"cache_dir": folder / "cache"})

def fork(work):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, b"started")
        work()
        os._exit(0)
    os.close(writing)
    os.read(reading, 7)
    return child

def work_forever():
    cache = open_cache()
    while True:
        for item in random.sample(items, len(items)):
            cache.get(item)
            if random.random() < 0.7:
                cache.disk.path(cache.key(item).digest).unlink(missing_ok=True)
            cache.memory_tiers[0].clear()

def check():
    cache = open_cache()
    signal.alarm(20)  # a lock that a killed process left behind would hang here
    for item in items:
        assert torch.equal(cache.get(item)["image"].as_tensor(), 2 * torch.from_numpy(np.load(item["image"])))
    signal.alarm(0)

for seed in range(num_kills):
    random.seed(seed)
    children = [fork(work_forever) for _ in range(2)]
    time.sleep(random.uniform(0, 0.12))
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    check()

if num_kills == 0:
    children = [fork(lambda: [open_cache().get(item) for item in items]) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    check()
    print("".join(sorted((folder / "computed").read_text())))
"""


def run(tmp_path, num_kills):
    program = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), str(num_kills)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def test_kill_at_8_random_moments_leaves_a_usable_cache(tmp_path):
    run(tmp_path, 8)


@pytest.mark.slow
def test_kill_at_50_random_moments_leaves_a_usable_cache(tmp_path):
    run(tmp_path, 50)


def test_three_processes_that_fill_at_once_compute_every_case_once(tmp_path):
    assert run(tmp_path, 0).stdout.strip() == "012345"
    assert not list((tmp_path / "cache").rglob("*.aside"))
