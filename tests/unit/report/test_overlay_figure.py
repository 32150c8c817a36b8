"""The overlay picture, read back pixel by pixel."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from vol3d.errors import DataError, GeometryError, OutputError, UsageError
from vol3d.geometry import VolumeGeometry
from vol3d.report.label_colors import label_color
from vol3d.report.overlay_figure import save_overlay

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (40, 50, 30)
NAMES = {0: "background", 1: "first", 2: "second"}


def volume() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 100, size=SHAPE).astype(np.float32)


def labels() -> np.ndarray:
    """Label 1 at the patient's right, label 2 at the left, at the same height."""
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[26:36, 15:35, 8:22] = 1
    array[4:14, 15:35, 8:22] = 2
    return array


def geometry(scale: float = 1.0) -> VolumeGeometry:
    return VolumeGeometry(SHAPE, np.diag([scale, scale, scale, 1.0]))


def columns_of(picture: np.ndarray, rank: int) -> np.ndarray:
    """Columns of the axial panel (the left third, above the legend) that hold a label's pure colour."""
    height, width = picture.shape[:2]
    panel = picture[: int(height * 0.85), : width // 3, :3]
    is_color = np.abs(panel - np.array(to_rgb(label_color(rank)))).max(axis=-1) < 0.02
    return np.nonzero(is_color)[1]


def test_the_right_side_of_the_patient_is_on_the_left_of_the_picture(tmp_path: Path) -> None:
    picture = imread(save_overlay(tmp_path / "overlay.png", volume(), labels(), geometry(), NAMES))
    right, left = columns_of(picture, 0), columns_of(picture, 1)
    assert right.size > 100
    assert left.size > 100
    assert right.max() < left.min()


def test_a_flipped_file_gives_the_same_picture(tmp_path: Path) -> None:
    flipped = VolumeGeometry(SHAPE, np.diag([-1.0, 1.0, 1.0, 1.0]))
    plain = imread(save_overlay(tmp_path / "plain.png", volume(), labels(), geometry(), NAMES))
    mirrored = imread(save_overlay(tmp_path / "flipped.png", volume()[::-1], labels()[::-1], flipped, NAMES))
    # Only the caption's index of the sagittal slice may differ.
    assert plain.shape == mirrored.shape
    assert (plain != mirrored).any(axis=-1).mean() < 0.001


def test_equal_input_gives_equal_bytes_without_text_chunks(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    contents = [save_overlay(path, volume(), labels(), geometry(), NAMES).read_bytes() for path in paths]
    assert contents[0] == contents[1]
    assert chunk_names(contents[0]).isdisjoint({b"tEXt", b"iTXt", b"zTXt", b"eXIf"})


def chunk_names(png: bytes) -> set[bytes]:
    names, offset = set(), 8
    while offset < len(png):
        (length,) = struct.unpack(">I", png[offset : offset + 4])
        names.add(png[offset + 4 : offset + 8])
        offset += 12 + length
    return names


def test_small_labels_make_a_taller_picture_with_a_close_up(tmp_path: Path) -> None:
    small = np.zeros(SHAPE, dtype=np.uint8)
    small[18:20, 20:22, 14:16] = 1
    whole = imread(save_overlay(tmp_path / "whole.png", volume(), labels(), geometry(), NAMES))
    close = imread(save_overlay(tmp_path / "close.png", volume(), small, geometry(4.0), NAMES))
    assert close.shape[0] > whole.shape[0]


def test_empty_labels_and_constant_or_nan_volumes_are_drawn(tmp_path: Path) -> None:
    empty = np.zeros(SHAPE, dtype=np.uint8)
    broken = np.full(SHAPE, np.nan, dtype=np.float32)
    holed = volume()
    holed[5:9] = np.nan
    holed[9], holed[10] = np.inf, -np.inf
    huge = volume().astype(np.float64) * 1e300
    for image in (volume(), np.zeros(SHAPE, dtype=np.int16), broken, holed, huge):
        assert imread(save_overlay(tmp_path / "empty.png", image, empty, geometry(), NAMES)).ndim == 3


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (300, 4, 4)])
def test_odd_shapes_are_drawn(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    grid = VolumeGeometry(shape, np.diag([0.5, -2.0, 1.0, 1.0]))
    ones = np.ones(shape, dtype=np.uint8)
    assert save_overlay(tmp_path / "odd.png", ones.astype(np.float32), ones, grid, {1: "all"}).is_file()


def test_many_labels_without_names_are_drawn(tmp_path: Path) -> None:
    many = np.zeros(SHAPE, dtype=np.int32)
    for value in range(1, 31):
        many[value, 10:40, 5:25] = value
    assert save_overlay(tmp_path / "many.png", volume(), many, geometry(), {}).is_file()


def test_a_title_with_dollar_signs_is_text_and_not_a_formula(tmp_path: Path) -> None:
    assert save_overlay(tmp_path / "t.png", volume(), labels(), geometry(), NAMES, title="case $x_1$ \\frac").is_file()


def test_a_class_name_with_dollar_signs_or_a_leading_underscore_is_text(tmp_path: Path) -> None:
    assert save_overlay(tmp_path / "t.png", volume(), labels(), geometry(), {1: "$\\frac$", 2: "_hidden"}).is_file()


def test_the_grey_window_decides_what_is_white(tmp_path: Path) -> None:
    empty = np.zeros(SHAPE, dtype=np.uint8)
    dark = imread(save_overlay(tmp_path / "d.png", volume(), empty, geometry(), {}, grey_window=(1000, 2000)))
    bright = imread(save_overlay(tmp_path / "b.png", volume(), empty, geometry(), {}, grey_window=(-2, -1)))
    assert dark[..., :3].mean() < 0.05
    assert bright[..., :3].mean() > 0.5


def test_pyplot_and_the_global_settings_are_not_touched(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    save_overlay(tmp_path / "overlay.png", volume(), labels(), geometry(), NAMES)
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_an_old_picture_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "overlay.png"
    path.write_bytes(b"old")
    save_overlay(path, volume(), labels(), geometry(), NAMES)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in tmp_path.iterdir()] == ["overlay.png"]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"path must end in \.png, got overlay\.jpg"):
        save_overlay(tmp_path / "overlay.jpg", volume(), labels(), geometry(), NAMES)


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="path must be a file that can be written"):
        save_overlay(tmp_path / "file" / "overlay.png", volume(), labels(), geometry(), NAMES)


def test_bad_arguments_are_refused_and_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "overlay.png"
    with pytest.raises(GeometryError, match="labels must have the shape"):
        save_overlay(path, volume(), labels()[1:], geometry(), NAMES)
    with pytest.raises(DataError, match="labels must be integer"):
        save_overlay(path, volume(), labels().astype(np.float32), geometry(), NAMES)
    with pytest.raises(UsageError, match=r"grey_window must rise, got \(5, 5\)"):
        save_overlay(path, volume(), labels(), geometry(), NAMES, grey_window=(5, 5))
    assert not path.exists()
