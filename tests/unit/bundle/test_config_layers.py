"""Layers combine as MONAI combines them, and nothing unknown passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from monai.bundle import ConfigParser

from vol3d.bundle.config_layers import config_ids, override, parse_assignment, read_layers
from vol3d.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, *contents: str) -> list[Path]:
    paths = [folder / f"layer{number}.yaml" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    return paths


def test_layers_combine_as_in_monai(tmp_path: Path) -> None:
    base = "a: 1\nb: {c: [1, 2], d: {e: 5, f: 6}}\n"
    overlay = "a: 2\nb::d::e: 7\nb::g: new\nz: {x: '@a'}\n"
    paths = write(tmp_path, base, overlay)
    expected = {"a": 2, "b": {"c": [1, 2], "d": {"e": 7, "f": 6}, "g": "new"}, "z": {"x": "@a"}}
    assert read_layers(paths) == expected
    assert read_layers(paths) == ConfigParser.load_config_files([str(path) for path in paths])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\na: 2\n", "key 'a' stands twice"),
        ("a: {b: 1, b: 2}\n", "key 'b' stands twice"),
        ("a: [1\n", "layer0.yaml must be readable YAML"),
        ("- a\n", "layer0.yaml must be a mapping of names, got list"),
        ("", "layer0.yaml must be a mapping of names, got NoneType"),
        ("'+a': [1]\n", r"layer0.yaml must override by name, got '\+a'"),
        ("a::b: 1\n", "layer0.yaml must refine what an earlier file defines, got 'a::b'"),
        ("a: !!python/object/apply:os.getcwd []\n", "must be readable YAML"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        read_layers(write(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere\.yaml must be readable"):
        read_layers([tmp_path / "nowhere.yaml"])
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match=r"binary\.yaml must be readable"):
        read_layers([tmp_path / "binary.yaml"])


def test_overrides_change_a_copy() -> None:
    config = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert override(config, {"a::b": 9, "d": []}) == {"a": {"b": 9, "c": 2}, "d": []}
    assert config == {"a": {"b": 1, "c": 2}, "d": [1]}


@pytest.mark.parametrize(
    ("name", "near"),
    [("roi_sise", "did you mean roi_size?"), ("a::bb", "did you mean a::b?"), ("@@", "see the bundle")],
)
def test_an_unknown_key_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override({"roi_size": [1], "a": {"b": 1}}, {name: 0})
    assert name in str(caught.value)
    assert near in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tta=true", ("tta", True)),
        ("a::b=3", ("a::b", 3)),
        ("path=/a/b=c", ("path", "/a/b=c")),
        ("x=", ("x", None)),
        ("roi_size=[1, 2]", ("roi_size", [1, 2])),
    ],
)
def test_assignments_are_read_as_yaml(text: str, expected: tuple[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["tta", "=3", "a=[1"])
def test_a_broken_assignment_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_assignment(text)


def test_ids_reach_every_level() -> None:
    assert list(config_ids({"a": {"b": {"c": 1}}, "d": [{"e": 1}]})) == ["a", "a::b", "a::b::c", "d"]
