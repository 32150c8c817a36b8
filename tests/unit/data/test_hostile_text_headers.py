from __future__ import annotations

import gzip
import re
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk

from vol3d.data.volume_reader import read_geometry, read_volume
from vol3d.errors import GeometryError, VolumeReadError

if TYPE_CHECKING:
    from pathlib import Path

ARRAY = np.arange(60, dtype="<i2").reshape((3, 4, 5), order="F")
RAW = ARRAY.tobytes(order="F")

META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 1 1 2
DimSize = 3 4 5
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""

NRRD = """NRRD0004
# a comment
type: short
dimension: 3
space: left-posterior-superior
sizes: 3 4 5
space directions: (1,0,0) (0,1,0) (0,0,2)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (0,0,0)
DWMRI_b-value:=1000

"""


def changed(header: str, **fields: str | None) -> str:
    """Replace the value of fields (``_`` for a space in a NRRD name), or drop the line for None."""
    for name, value in fields.items():
        key = name if header.startswith("ObjectType") else name.replace("_", " ")
        sign = " = " if header.startswith("ObjectType") else ": "
        line = "" if value is None else f"{key}{sign}{value}\n"
        header, count = re.subn(rf"(?m)^{key} ?[:=] .*\n", line.replace("\\", r"\\"), header)
        assert count == 1, name
    return header


def write(path: Path, header: str, data: bytes = RAW) -> Path:
    path.write_bytes(header.encode("latin-1") + data)
    return path


def test_the_headers_of_these_tests_are_sound_and_read_as_itk_reads_them(tmp_path: Path) -> None:
    for path in (write(tmp_path / "scan.mha", META), write(tmp_path / "scan.nrrd", NRRD)):
        np.testing.assert_array_equal(read_volume(path).array, ARRAY)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, ARRAY)
        assert read_geometry(path).axis_codes == "LPS"
        assert read_geometry(path).spacing_mm == (1.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("space", "codes"),
    [("right-anterior-superior", "RAS"), ("LAS", "LAS"), ("left-posterior-superior", "LPS")],
)
def test_every_patient_space_of_nrrd_lands_where_itk_puts_it(tmp_path: Path, space: str, codes: str) -> None:
    header = changed(NRRD, space=space, space_origin="(5,6,7)")
    path = write(tmp_path / "scan.nrrd", header)
    image = sitk.ReadImage(str(path))
    geometry = read_geometry(path)
    assert geometry.axis_codes == codes
    np.testing.assert_allclose(geometry.lps_affine[:3, 3], image.GetOrigin())
    np.testing.assert_allclose(
        geometry.lps_affine[:3, :3], np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    )


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"DimSize": "300000 300000 300000"}, "declared size must be at most 8.0 GiB"),
        ({"DimSize": "3 4"}, "volume must be 3D, got 2 axes"),
        ({"DimSize": "3 4 0"}, "every axis must have at least 1 voxel"),
        ({"DimSize": "3 4 x"}, "DimSize must hold numbers only, got '3 4 x'"),
        ({"DimSize": None}, "header must have 'DimSize', got none"),
        ({"ElementSpacing": "1 0 2"}, "spacing must be positive"),
        ({"ElementSpacing": "1 nan 2"}, "spacing must be positive"),
        ({"ElementSpacing": None}, "header must have 'ElementSpacing'"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "affine must be invertible"),
        ({"TransformMatrix": "1 0 0 0 nan 0 0 0 1"}, "affine must be finite"),
        ({"TransformMatrix": "1 0 0 1"}, "orientation must have 9"),
        ({"TransformMatrix": None}, "header must have TransformMatrix once, got none"),
        ({"Offset": None}, "header must have Offset once, got none"),
        ({"Offset": "inf 0 0"}, "affine must be finite"),
        ({"ElementType": "MET_UCHAR_ARRAY"}, "voxels must be single real numbers, got 'MET_UCHAR_ARRAY'"),
        ({"BinaryData": "False"}, "BinaryData must be True"),
        ({"NDims": "3\nElementNumberOfChannels = 3"}, "with '3' channels"),
        ({"NDims": "3\nDimSize = 9 9 9"}, "header must be single 'Key = Value' lines"),
        ({"ElementDataFile": None}, "header must|must end with ElementDataFile"),
        ({"DimSize": "3 4 6"}, "file must hold the 144 bytes"),
        ({"NDims": "3\nHeaderSize = -5", "ElementDataFile": "scan.mha"}, "HeaderSize must be -1 or more"),
    ],
)
def test_hostile_metaimage_headers_are_refused(tmp_path: Path, fields: dict[str, str | None], match: str) -> None:
    path = write(tmp_path / "scan.mha", changed(META, **fields))
    with pytest.raises(
        (GeometryError, VolumeReadError), match=f"^scan.mha: .*{re.escape(match) if '|' not in match else match}"
    ):
        read_volume(path)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"sizes": "300000 300000 300000"}, "declared size must be at most 8.0 GiB"),
        ({"sizes": "3 4"}, "volume must be 3D, got 2 axes"),
        ({"sizes": "3 4 5 2"}, "volume must be 3D, got 4 axes"),
        ({"sizes": None}, "header must have 'sizes', got none"),
        ({"type": "block"}, "voxels must be single real numbers, got type 'block'"),
        ({"endian": None}, "header must have 'endian'"),
        ({"endian": "middle"}, "endian must be little or big"),
        ({"space": None}, "left and right are unknown"),
        ({"space": "scanner-xyz"}, "got 'scanner-xyz'"),
        ({"space_directions": None}, "header must have 'spacedirections'"),
        ({"space_directions": "(1,0,0) (0,1,0) none"}, "space directions must be three vectors"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,0)"}, "spacing must be positive"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, "affine must be invertible"),
        ({"space_directions": "(1,0,0) (0,nan,0) (0,0,1)"}, "affine must be finite"),
        ({"space_origin": "(0,0)"}, "space origin one"),
        ({"kinds": "vector domain domain"}, "first three kinds must be domain"),
        ({"encoding": "bzip2"}, "encoding must be raw or gzip, got 'bzip2'"),
        ({"encoding": "raw\nline skip: 2"}, "line skip must be 0"),
        ({"encoding": "raw\nbyte skip: -3"}, "byte skip -1 or more"),
        ({"encoding": "raw\nsizes: 9 9 9"}, "single 'field: value' lines, got 'sizes: 9 9 9'"),
        ({"kinds": 'domain domain domain\nspace units: "m" "m" "m"'}, "space units must be mm, got ['m']"),
        ({"sizes": "3 4 6"}, "file must hold the 144 bytes"),
    ],
)
def test_hostile_nrrd_headers_are_refused(tmp_path: Path, fields: dict[str, str | None], match: str) -> None:
    path = write(tmp_path / "scan.nrrd", changed(NRRD, **fields))
    with pytest.raises((GeometryError, VolumeReadError), match=f"^scan.nrrd: .*{re.escape(match)}"):
        read_volume(path)


@pytest.mark.parametrize(
    "value",
    [
        *("../secret.raw", "/etc/hostname", "sub/../../secret.raw", "link.raw", "..\\secret.raw"),
        *("LIST", "LIST 2", "slice%03d.raw 1 5 1", "*.raw", "missing.raw", "."),
    ],
)
@pytest.mark.parametrize("suffix", [".mhd", ".mha", ".nhdr", ".nrrd"])
def test_a_data_file_outside_the_headers_folder_is_refused(tmp_path: Path, suffix: str, value: str) -> None:
    folder = tmp_path / "case"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(RAW)
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    (folder / "slice001.raw").write_bytes(RAW)
    header = (
        changed(META, ElementDataFile=value)
        if suffix in (".mhd", ".mha")
        else NRRD.rstrip() + f"\ndata file: {value}\n"
    )
    path = write(folder / f"scan{suffix}", header, b"")
    with pytest.raises(VolumeReadError, match=f"^scan{suffix}: data file must .*got"):
        read_volume(path)


def test_a_data_file_beside_or_below_its_header_is_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "my scan.raw").write_bytes(b"skip" + RAW)
    (tmp_path / "sub" / "scan.raw.gz").write_bytes(gzip.compress(RAW))
    header = changed(META, ElementDataFile="my scan.raw", NDims="3\nHeaderSize = -1")
    np.testing.assert_array_equal(read_volume(write(tmp_path / "a.mhd", header, b"")).array, ARRAY)
    header = changed(META, ElementDataFile="my scan.raw", NDims="3\nHeaderSize = 4")
    np.testing.assert_array_equal(read_volume(write(tmp_path / "b.mhd", header, b"")).array, ARRAY)
    header = changed(NRRD.rstrip() + "\n", encoding="gzip\ndata file: sub/scan.raw.gz")
    np.testing.assert_array_equal(read_volume(write(tmp_path / "c.nhdr", header, b"")).array, ARRAY)
    header = changed(NRRD.rstrip() + "\n", encoding="raw\nbyteskip: -1\ndatafile: ./my scan.raw")
    np.testing.assert_array_equal(read_volume(write(tmp_path / "d.nhdr", header, b"")).array, ARRAY)


def test_a_bomb_behind_a_small_header_is_refused_after_a_bounded_read(tmp_path: Path) -> None:
    bomb = RAW + bytes(100 * 2**20)
    paths = [
        write(tmp_path / "bomb.mha", changed(META, CompressedData="True"), zlib.compress(bomb, 1)),
        write(tmp_path / "bomb.nrrd", changed(NRRD, encoding="gzip"), gzip.compress(bomb, 1)),
    ]
    for path in paths:
        tracemalloc.start()
        with pytest.raises(VolumeReadError, match=f"{path.name}: data must end where the header says"):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        tracemalloc.stop()


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_compressed_voxels_are_refused_where_itk_returns_wrong_ones(tmp_path: Path, damage: str) -> None:
    noise = np.random.default_rng(0).integers(0, 999, 60).astype("<i2").tobytes()
    for path, header, packed in (
        (tmp_path / "scan.mha", changed(META, CompressedData="True"), zlib.compress(noise)),
        (tmp_path / "scan.nrrd", changed(NRRD, encoding="gz"), gzip.compress(noise)),
    ):
        broken = packed[:-9] if damage == "cut" else packed[:40] + bytes([packed[40] ^ 16]) + packed[41:]
        write(path, header, broken)
        with pytest.raises(VolumeReadError, match=f"^{path.name}: "):
            read_volume(path)


def test_metaimage_takes_gzip_data_too(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.mha", changed(META, CompressedData="True"), gzip.compress(RAW))
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)


def test_big_endian_voxels_come_out_in_native_order(tmp_path: Path) -> None:
    data = ARRAY.astype(">i2").tobytes(order="F")
    for path in (
        write(tmp_path / "scan.mha", changed(META, BinaryDataByteOrderMSB="True"), data),
        write(tmp_path / "scan.nrrd", changed(NRRD, endian="big"), data),
    ):
        np.testing.assert_array_equal(read_volume(path).array, ARRAY)


@pytest.mark.parametrize("name", ["text.mha", "text.mhd", "text.nrrd", "text.nhdr"])
def test_text_files_with_a_volume_suffix_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("patient list\n" * 9)
    with pytest.raises(VolumeReadError, match=f"^{name}: (header|file) must"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["zeros.mha", "zeros.nrrd", "zeros.nii"])
def test_binary_noise_with_a_volume_suffix_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(5000))
    with pytest.raises(VolumeReadError, match=f"^{name}: (header|file) must"):
        read_volume(tmp_path / name)
