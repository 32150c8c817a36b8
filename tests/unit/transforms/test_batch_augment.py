from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ResizeWithPadOrCrop
from scipy import ndimage
from torch.utils.data import DataLoader

from vol3d.errors import ConfigError, GeometryError
from vol3d.transforms.augment_settings import IntensitySettings, SpatialSettings
from vol3d.transforms.batch_augment import BatchAugment
from vol3d.transforms.spatial_field import spatial_field

SHAPES = [(16, 18, 15), (20, 9, 14), (5, 31, 12), (13, 13, 13)]
ROI = (12, 13, 14)


def all_spatial(**changes: Any) -> SpatialSettings:
    always = {f"{name}_probability": 1.0 for name in ("rotation", "scale", "shear", "translation", "elastic")}
    return SpatialSettings(**{**always, **changes})


def all_intensity(**changes: Any) -> IntensitySettings:
    names = (
        "bias_field", "blur", "low_resolution", "gaussian_noise", "rician_noise", "poisson_noise", "brightness",
        "shift", "contrast", "gamma_inverted", "gamma",
    )  # fmt: skip
    return IntensitySettings(**{**{f"{name}_probability": 1.0 for name in names}, **changes})


def no_spatial(**changes: Any) -> SpatialSettings:
    off = {"rotation_probability": 0.0, "scale_probability": 0.0, "flip_probability": (0.0, 0.0, 0.0)}
    return SpatialSettings(**{**off, **changes})


def no_intensity() -> IntensitySettings:
    names = ("blur", "low_resolution", "gaussian_noise", "brightness", "contrast", "gamma_inverted", "gamma")
    return IntensitySettings(**{f"{name}_probability": 0.0 for name in names})


def volumes(channels: int = 2) -> dict[str, Any]:
    """Four samples of different size."""
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.normal(size=(channels, *shape)).astype(np.float32)) for shape in SHAPES]
    labels = [torch.from_numpy(rng.integers(0, 3, (1, *shape)).astype(np.uint8)) for shape in SHAPES]
    return {"image": images, "label": labels, "case": ["a", "b", "c", "d"]}


def augment(**changes: Any) -> BatchAugment:
    options = {"spatial": all_spatial(), "intensity": all_intensity(), "seed": 11}
    return BatchAugment(ROI, **{**options, **changes})


@pytest.mark.parametrize("roi", [(12, 13, 14), (4, 5, 6), (21, 20, 33)])
def test_identity_settings_return_monais_center_crop_bit_by_bit(roi: tuple[int, int, int]) -> None:
    batch = volumes()
    result = BatchAugment(roi, no_spatial(), no_intensity())(batch, epoch=1)
    for key in ("image", "label"):
        for new, old in zip(result[key], batch[key], strict=True):
            expected = ResizeWithPadOrCrop(roi)(old)
            assert new.dtype == old.dtype
            assert np.array_equal(new.numpy(), np.asarray(expected))


def test_image_and_label_follow_the_listed_parameters() -> None:
    batch, transform = volumes(), augment(intensity=no_intensity())
    parameters = transform.draw(batch["case"], 2, SHAPES)
    result = transform(batch, 2)
    for number, drawn in enumerate(parameters):
        source = spatial_field(ROI, drawn).coordinates()
        old = batch["label"][number][0].numpy()
        label = ndimage.map_coordinates(old, source, order=0, mode="grid-constant", cval=0)
        assert (result["label"][number, 0].numpy() != label).mean() < 1e-3
        for new, channel in zip(result["image"][number].numpy(), batch["image"][number].numpy(), strict=True):
            image = ndimage.map_coordinates(channel, source, order=1, mode="grid-constant", cval=0)
            np.testing.assert_allclose(new, image, atol=1e-4)


def test_labels_hold_no_invented_values() -> None:
    batch = volumes()
    batch["label"] = [label * 7 for label in batch["label"]]
    for classes in (None, 15):
        labels = augment(spatial=all_spatial(num_label_classes=classes))(batch, 1)["label"]
        assert set(labels.unique().tolist()) <= {0, 7, 14}


def test_an_empty_label_stays_empty() -> None:
    batch = volumes()
    batch["label"] = [torch.zeros_like(label) for label in batch["label"]]
    assert augment()(batch, 1)["label"].max() == 0


def test_the_order_of_the_batch_changes_nothing() -> None:
    batch = volumes()
    forward = augment()(batch, 3)
    backward = augment()({key: value[::-1] for key, value in batch.items()}, 3)
    for key in ("image", "label"):
        assert torch.equal(forward[key], backward[key].flip(0))


def test_a_sample_alone_is_what_it_is_in_a_batch() -> None:
    batch = volumes()
    together = augment()(batch, 3)
    alone = augment()({key: value[2:3] for key, value in batch.items()}, 3)
    assert torch.equal(together["image"][2:3], alone["image"])


def test_the_number_of_threads_changes_nothing() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(augment()(volumes(), 3))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0]["image"], other["image"])
        assert torch.equal(results[0]["label"], other["label"])


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = augment()(volumes(), 1)["image"]
    assert torch.equal(augment()(volumes(), 1)["image"], first)
    assert not torch.equal(augment()(volumes(), 2)["image"], first)
    assert not torch.equal(augment(seed=12)(volumes(), 1)["image"], first)


def test_a_replay_of_saved_parameters_is_equal_and_leaves_the_batch_alone() -> None:
    batch, transform = volumes(), augment()
    before = [image.clone() for image in batch["image"]]
    saved = json.dumps(transform.parameters_of(batch, 5))
    result, replay = transform(batch, 5), augment(seed=0).apply(batch, json.loads(saved))
    assert torch.equal(result["image"], replay["image"])
    assert torch.equal(result["label"], replay["label"])
    assert all(torch.equal(old, image) for old, image in zip(before, batch["image"], strict=True))


@pytest.mark.parametrize("spatial", [no_spatial(), all_spatial()])
def test_integer_images_are_augmented_as_float32(spatial: SpatialSettings) -> None:
    batch = volumes()
    batch["image"] = [(image * 100).to(torch.int16) for image in batch["image"]]
    as_float = {**batch, "image": [image.to(torch.float32) for image in batch["image"]]}
    result = augment(spatial=spatial)(batch, 1)["image"]
    assert result.dtype == torch.float32
    assert torch.equal(result, augment(spatial=spatial)(as_float, 1)["image"])


class Cases(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> dict[str, Any]:
        rng = np.random.default_rng(number)
        return {
            "image": torch.from_numpy(rng.normal(size=(1, 14, 14, 14)).astype(np.float32)),
            "case": f"case-{number}",
        }


class CollateAndAugment:
    """Augments in the workers of a loader."""

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return augment()(torch.utils.data.default_collate(samples), 4)


# Python 3.12 warns of every fork beside threads; a worker of a loader runs none.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_augmenting_in_workers_or_in_the_main_process_is_the_same() -> None:
    results = {}
    for workers in (0, 2):
        context = "fork" if workers else None
        collate = CollateAndAugment() if workers else None
        loader = DataLoader(
            Cases(), batch_size=4 - workers, num_workers=workers, collate_fn=collate, multiprocessing_context=context
        )
        batches = [batch if workers else augment()(batch, 4) for batch in loader]
        results[workers] = torch.cat([batch["image"] for batch in batches])
    assert torch.equal(results[0], results[2])


def test_repeated_cases_are_numbered_unless_the_batch_numbers_them() -> None:
    batch = volumes()
    batch["case"] = ["a", "a", "b", "a"]
    assert [p["draw"] for p in augment().parameters_of(batch, 1)] == [0, 1, 0, 2]
    batch["draw"] = torch.tensor([5, 6, 0, 7])
    parameters = augment().parameters_of(batch, 1)
    assert [p["draw"] for p in parameters] == [5, 6, 0, 7]
    assert parameters[0]["spatial"] != parameters[1]["spatial"]
    json.dumps(parameters)


def test_cases_may_be_a_tensor_of_numbers() -> None:
    batch = {**volumes(), "case": torch.tensor([3, 1, 2, 0])}
    parameters = augment().parameters_of(batch, 1)
    assert [p["case"] for p in parameters] == [3, 1, 2, 0]
    assert parameters == augment().parameters_of({**batch, "case": np.array([3, 1, 2, 0])}, 1)


def test_samples_of_a_dataset_may_bring_centers_as_arrays() -> None:
    samples = [
        {"image": torch.rand(1, 9, 9, 9), "case": f"{number}", "center_vox": np.array([4, 5, number + 2])}
        for number in range(3)
    ]
    batch = torch.utils.data.default_collate(samples)
    assert [p["start_vox"] for p in BatchAugment((4, 4, 4)).parameters_of(batch, 1)] == [
        [2, 3, 0],
        [2, 3, 1],
        [2, 3, 2],
    ]


def test_spacing_of_the_batch_goes_before_that_of_the_settings() -> None:
    batch = {**volumes(), "spacing_mm": torch.tensor([[1.0, 1.0, 5.0]] * 4)}
    own = augment(spatial=all_spatial(spacing_mm=(1, 1, 5)))(volumes(), 1)
    assert torch.equal(augment()(batch, 1)["image"], own["image"])
    assert not torch.equal(augment()(volumes(), 1)["image"], own["image"])


def test_a_patch_center_of_the_batch_is_where_the_patch_lies() -> None:
    batch = {**volumes(), "center_vox": [(8, 9, 7), (10, 4, 7), (2, 20, 6), (6, 6, 6)]}
    result = BatchAugment((4, 4, 4), no_spatial(), no_intensity())(batch, 1)
    assert torch.equal(result["image"][0], batch["image"][0][:, 6:10, 7:11, 5:9])
    assert torch.equal(result["label"][1], batch["label"][1][:, 8:12, 2:6, 5:9])


def test_outside_the_volume_images_are_padded_as_configured_and_labels_with_zero() -> None:
    batch = {"image": torch.ones((1, 1, 4, 4, 4)), "label": torch.ones((1, 1, 4, 4, 4)), "case": [0]}
    for settings, value in ((no_spatial(padding_value=-7.0), -7.0), (no_spatial(padding="border"), 1.0)):
        result = BatchAugment((8, 8, 8), settings, no_intensity())(batch, 1)
        assert result["image"][0, 0, 0, 0, 0] == value
        assert result["label"].sum() == 64


def test_meta_tensors_give_plain_tensors_and_other_entries_pass() -> None:
    batch = {
        "image": MetaTensor(torch.stack([volumes()["image"][0]] * 2), affine=torch.eye(4)),
        "case": ["a", "b"],
        "site": 3,
    }
    result = augment()(batch, 1)
    assert type(result["image"]) is torch.Tensor
    assert result["site"] == 3
    assert "label" not in result


def test_reduced_precision_of_the_training_does_not_reach_the_augmentation() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = augment()(volumes(), 1)
        with torch.autocast("cpu", torch.bfloat16):
            result = augment()(volumes(), 1)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(result["image"], expected["image"])


def test_an_augmentation_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(augment()))  # noqa: S301 - made on the line itself
    assert torch.equal(copy(volumes(), 1)["image"], augment()(volumes(), 1)["image"])


def test_the_result_takes_part_in_no_gradient() -> None:
    batch = volumes()
    batch["image"][0].requires_grad_()
    assert not augment()(batch, 1)["image"].requires_grad


def test_nothing_is_read_back_from_the_device() -> None:
    # Tensors on the meta device have no values: whatever would wait for them fails.
    batch = volumes()
    for key in ("image", "label"):
        batch[key] = [volume.to("meta") for volume in batch[key]]
    for settings in (all_spatial(), all_spatial(num_label_classes=3), no_spatial(), no_spatial(padding="border")):
        result = augment(spatial=settings, intensity=all_intensity(window_hu=(-1, 1)))(batch, 1)
        assert result["image"].shape == (4, 2, *ROI)
        assert result["label"].shape == (4, 1, *ROI)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("classes", [None, 3])
def test_a_gpu_gives_what_the_cpu_gives_without_waiting_for_it(classes: int | None) -> None:
    batch, transform = volumes(), augment(spatial=all_spatial(num_label_classes=classes))
    moved = {**batch, **{key: [volume.cuda() for volume in batch[key]] for key in ("image", "label")}}
    transform(moved, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = transform(moved, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = transform(batch, 1)
    torch.testing.assert_close(result["image"].cpu(), expected["image"], atol=1e-3, rtol=1e-3)
    assert (result["label"].cpu() != expected["label"]).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"case": None}, ConfigError, "case must name each sample of the batch, got none"),
        ({"case": ["a"]}, ConfigError, r"shapes must have one entry per case \(1\), got 4"),
        ({"image": None}, ConfigError, r"batch must hold 'image', got \['case', 'label'\]"),
        ({"image": []}, ConfigError, "image must hold at least one sample"),
        ({"image": [torch.zeros(3, 3, 3)] * 4}, GeometryError, r"image must be real volumes .* shape \(3, 3, 3\)"),
        (
            {"image": [torch.zeros(1, 3, 3, 0)] * 4},
            GeometryError,
            r"image must be real volumes .* shape \(1, 3, 3, 0\)",
        ),
        ({"label": [torch.zeros(1, 3, 3, 3)] * 4}, GeometryError, r"label must .* got \(1, 3, 3, 3\)"),
        ({"label": [torch.zeros(1, 3, 3, 3)] * 3}, ConfigError, r"label must have one entry per image \(4\), got 3"),
        (
            {"label": [torch.zeros(1, *s, dtype=torch.int16 if s[0] > 9 else torch.uint8) for s in SHAPES]},
            ConfigError,
            r"label must have the same channels, dtype and device in all samples, got .*int16.* and .*uint8",
        ),
        (
            {"label": [torch.zeros(1, *s, device="meta") for s in SHAPES]},
            ConfigError,
            "label must lie on its image's device cpu, got meta",
        ),
        ({"spacing_mm": [(1, 1, 1)] * 3}, ConfigError, r"spacing_mm must have one entry per case \(4\), got 3"),
        ({"spacing_mm": [(1, 1, 0)] * 4}, GeometryError, r"spacing_mm must be positive, got \(1.0, 1.0, 0.0\)"),
        ({"case": [("a", 1)] * 4}, ConfigError, r"case must be a name or a whole number, got \('a', 1\)"),
        ({"draw": torch.zeros(4, device="meta")}, ConfigError, "draw must lie on the host, got a tensor on meta"),
    ],
)
def test_batches_that_cannot_be_augmented_are_refused(change: dict[str, Any], error: Any, message: str) -> None:
    batch = {key: value for key, value in {**volumes(), **change}.items() if value is not None}
    with pytest.raises(error, match=message):
        augment()(batch, 1)


def test_a_patch_size_of_two_axes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"roi_size must be 3 positive numbers, got \(8, 8\)"):
        BatchAugment((8, 8))


def test_parameters_of_another_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"parameters must have one entry per sample \(4\), got 1"):
        augment().apply(volumes(), augment().draw(["a"], 1, SHAPES[:1]))
