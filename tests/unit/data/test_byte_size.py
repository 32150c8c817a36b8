import pytest

from vol3d.data.byte_size import format_bytes, parse_bytes
from vol3d.errors import ConfigError


@pytest.mark.parametrize(
    ("size", "num_bytes"),
    [(0, 0), (7, 7), ("7", 7), ("1KiB", 1024), ("2 mb", 2_000_000), ("0.5GiB", 2**29), ("1TiB", 2**40), ("3 B", 3)],
)
def test_sizes_are_read_with_and_without_unit(size, num_bytes):
    assert parse_bytes(size, "ram_bytes") == num_bytes


@pytest.mark.parametrize("size", [-1, "-1", "1 parsec", "", "GiB", True, 1.5, None, "1e9", "1GiB!"])
def test_what_is_no_size_is_refused_by_name_and_value(size):
    with pytest.raises(ConfigError, match=r"ram_bytes must be a number of bytes, got .*write for example 1GiB"):
        parse_bytes(size, "ram_bytes")


@pytest.mark.parametrize(("num", "text"), [(12, "12 B"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (2**41, "2048.0 GiB")])
def test_sizes_are_shown_in_powers_of_1024(num, text):
    assert format_bytes(num) == text
