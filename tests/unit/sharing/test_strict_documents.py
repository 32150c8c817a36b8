"""Strict documents mean one thing to every reader."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vol3d.errors import RefusedError
from vol3d.sharing.strict_documents import parse_json, parse_yaml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(VALUES)
def test_plain_json_is_read_as_it_was_written(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), "x") == value


@given(st.dictionaries(st.text("abc", min_size=1), st.integers() | st.booleans() | st.text("xyz "), max_size=4))
def test_plain_yaml_is_read_as_the_safe_loader_reads_it(value: object) -> None:
    text = yaml.safe_dump(value)
    assert parse_yaml(text.encode(), "x") == yaml.safe_load(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(data, "x")
        except RefusedError as error:
            assert str(error).startswith("[document.")  # noqa: PT017 - a refusal is one of two good outcomes


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &x 1", "document.alias"),
        ("a: *x", "document.alias"),
        ("a: 1\n'a': 2", "document.duplicate"),
        ("1: a\n'1': b", "document.duplicate"),
        ("? [a]\n: 1", "document.key"),
        ("true: 1", "document.key"),
        ("a: !!str 1", "document.tag"),
        ("a: .inf", "document.syntax"),
        ("a: 2024-01-01", "document.type"),
        ("a: 1\n---\nb: 2", "document.syntax"),
    ],
)
def test_yaml_that_two_readers_could_read_differently_is_refused(text: str, code: str) -> None:
    with pytest.raises(RefusedError, match=code):
        parse_yaml(text.encode(), "x")
