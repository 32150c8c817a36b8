"""Each way in which metadata can be wrong is found, and named with its value."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from vol3d.bundle import metadata_check
from vol3d.bundle.metadata_check import SCHEMA_PATH, check_metadata

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_correct_bundle_has_no_finding(maker: Any) -> None:
    assert check_metadata(maker.layout) == []


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_PATH.read_text()))


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(metadata: dict[str, Any]) -> None:
        place: Any = metadata
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda metadata: metadata.pop(key)


PORT = ("network_data_format", "inputs", "image")
FIGURE = {"value": 0.9, "dataset": "d", "split": "validation", "n": 26, "command": "vol3d evaluate"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (drop("required_packages_version"), "'required_packages_version' is a required property"),
        (drop("changelog"), "'changelog' is a required property"),
        (put("optional_packages_version", value={"itk": "5.4"}), "optional_packages_version must not be there"),
        (put("required_packages_version", value={"itk": "5.4"}), "'vol3d' is a required property"),
        (put("modality", value="MRI"), "modality must follow the schema, got: 'MRI'"),
        (put("version", value="one"), "version must follow the schema, got: 'one'"),
        (put("schema", value="https://example.org/x.json"), "schema must follow the schema"),
        (put("task", value=" "), "task must follow the schema"),
        (put("task_type", value="guess"), "task_type must follow the schema"),
        (put("eval_metrics", value={"mean_dice": 0.9}), "eval_metrics/mean_dice must follow the schema, got: 0.9"),
        (put("eval_metrics", value={"mean_dice": {"value": 0.9}}), "'dataset' is a required property"),
        (put("eval_metrics", value={"mean_dice": {**FIGURE, "n": 0}}), "eval_metrics/mean_dice/n"),
        (put(*PORT, "dtype", value="float"), "network_data_format/inputs/image/dtype"),
        (put(*PORT, "spatial_shape", value=["__import__('os')"]), "inputs/image/spatial_shape/0"),
        (put(*PORT, "num_channels", value=0), "inputs/image/num_channels"),
        (put("critic_data_format", value={"inputs": {}}), "critic_data_format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_break_of_the_schema_is_found(maker: Any, change: Callable[[dict[str, Any]], Any], expected: str) -> None:
    findings = check_metadata(maker.metadata(change))
    assert any(expected in finding for finding in findings), findings
    assert not any("\n" in finding for finding in findings)


def test_a_figure_that_says_how_it_was_measured_passes(maker: Any) -> None:
    figures = {"mean_dice": FIGURE, "hd95": {**FIGURE, "unit": "mm", "interval": [0.8, 1.1]}}
    assert check_metadata(maker.metadata(put("eval_metrics", value=figures))) == []


def test_open_sizes_pass(maker: Any) -> None:
    assert check_metadata(maker.metadata(put(*PORT, "spatial_shape", value=["*", "8*n", "2**p*n"]))) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (put("modality", value="CT"), "modality must be in the bundle's name, got CT for brain_mr_segmentation"),
        (put("version", value="0.2.0"), "version must have an entry in changelog, got 0.2.0"),
        (put(*PORT, "modality", value="CT"), "modality of input image must be the bundle's MR, got CT"),
        (put(*PORT, "spatial_shape", value=[4, 4, 4]), "must be the config's roi_size [4, 6, 4], got [4, 4, 4]"),
        (put(*PORT, "channel_def", value={"1": "image"}), "channel_def of image must name channels 0 to 0, got 1"),
        (
            put("network_data_format", "outputs", "pred", "channel_def", "1", value="fornt"),
            "channel_def of pred must be the config's class_names ['front', 'back'], got ['fornt', 'back']",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_contradiction_to_name_or_configs_is_found(
    maker: Any, change: Callable[[dict[str, Any]], Any], expected: str
) -> None:
    (finding,) = check_metadata(maker.metadata(change))
    assert expected in finding


def test_channels_must_be_those_of_the_network(maker: Any) -> None:
    network = {"_target_": "torch.nn.Conv3d", "in_channels": "@width", "out_channels": 4, "kernel_size": 1}
    findings = check_metadata(maker.inference(network_def=network, width=2))
    assert [finding.split(";")[0] for finding in findings] == [
        "num_channels of the inputs must be network_def's in_channels 2, got 1",
        "num_channels of the outputs must be network_def's out_channels 4, got 3",
    ]


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ("1.6.1", []),
        ("1.6.1+cu12", []),
        ("1.6.10", []),
        ("1.10.0", []),
        ("1.6.0", ["monai must be at least 1.6.1, got 1.6.0; upgrade it"]),
        ("1.6.1rc1", ["monai must be at least 1.6.1, got 1.6.1rc1; upgrade it"]),
        ("2.0.0", ["monai must be of the series of 1.6.1, got 2.0.0; install monai==1.6.1"]),
    ],
)
def test_versions_are_compared_as_versions(
    maker: Any, monkeypatch: pytest.MonkeyPatch, installed: str, expected: list[str]
) -> None:
    present = {"monai": installed, "torch": "2.13.0", "vol3d": "0.1.3"}
    monkeypatch.setattr(metadata_check.importlib.metadata, "version", present.__getitem__)
    assert check_metadata(maker.layout) == expected


def test_a_minor_version_of_a_package_before_its_first_release_is_another_series(
    maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = {"monai": "1.6.1", "torch": "2.13.0", "vol3d": "0.2.0"}
    monkeypatch.setattr(metadata_check.importlib.metadata, "version", present.__getitem__)
    (finding,) = check_metadata(maker.layout)
    assert "vol3d must be of the series of 0.1.0, got 0.2.0" in finding


def test_a_package_that_is_not_installed_is_found(maker: Any) -> None:
    layout = maker.metadata(put("required_packages_version", "no-such-package-3d", value="1.0"))
    assert check_metadata(layout) == ["no-such-package-3d must be installed, got none; install no-such-package-3d>=1.0"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_an_unreadable_file_is_one_finding(maker: Any, content: bytes) -> None:
    maker.layout.metadata_path.write_bytes(content)
    (finding,) = check_metadata(maker.layout)
    assert "metadata.json" in finding


def test_a_missing_inference_config_is_a_finding(maker: Any) -> None:
    (maker.layout.root / "configs" / "inference.yaml").unlink()
    (finding,) = check_metadata(maker.layout)
    assert "configs/inference.yaml" in finding


def test_the_check_imports_no_torch() -> None:
    code = "import sys, vol3d.bundle.metadata_check; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
