"""JSON and YAML without the parts that let two readers see two different documents.

Refused in both: duplicate keys, more than 32 levels, numbers that are not finite, bytes that are not UTF-8.
Refused in YAML too: aliases, anchors, merge keys, explicit tags, dates, binary and keys that are neither text nor
integers.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import yaml

from vol3d.errors import RefusedError
from vol3d.sharing.refusal import refused, shorten

if TYPE_CHECKING:
    from pathlib import Path

MAX_DEPTH = 32
# A hand-written config has about 20 kB. PyYAML reads about 100 kB a second: the caps keep a hostile file under 2 s.
MAX_YAML_BYTES = 128 * 1024
MAX_JSON_BYTES = 4 * 1024 * 1024


def read_document(path: Path, where: str) -> Any:
    """Return the content of a ``.json``, ``.yaml`` or ``.yml`` file; ``where`` names it in refusals.

    Raises:
        RefusedError: If the file is too large or is not strict in the sense of this module.
    """
    is_json = path.suffix == ".json"
    limit = MAX_JSON_BYTES if is_json else MAX_YAML_BYTES
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise refused("document.size", f"{where} must have at most {limit} bytes, got more; split or shorten it")
    return parse_json(data, where) if is_json else parse_yaml(data, where)


def parse_json(data: bytes, where: str) -> Any:
    """Return the value of strict JSON.

    Raises:
        RefusedError: If ``data`` is not strict JSON.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise refused("document.duplicate", f"{where} must have unique keys, got one twice; remove one of them")
        return result

    def no_constant(name: str) -> None:
        raise _broken(where, f"the number {name}")

    try:
        value = json.loads(_text(data, where), object_pairs_hook=unique, parse_constant=no_constant)
    except RecursionError:
        raise _too_deep(where) from None
    except RefusedError:
        raise
    except ValueError as error:
        raise _broken(where, str(error)) from None
    _check_values(value, where, 0)
    return value


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that knows plain maps, lists and scalars only."""

    depth = 0
    where = ""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise refused("document.alias", f"{self.where} must have no YAML anchors or aliases; write the value out")
        if getattr(event, "tag", None) is not None:
            raise refused("document.tag", f"{self.where} must have no YAML tags, got {event.tag[:60]}; remove it")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _too_deep(self.where)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                raise refused("document.key", f"{self.where} must have plain text keys; write the value out")
            if key_node.value in seen:
                text = f"{self.where} must have unique keys, got {shorten(key_node.value)} twice; remove one of them"
                raise refused("document.duplicate", text)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def parse_yaml(data: bytes, where: str) -> Any:
    """Return the value of strict YAML.

    Raises:
        RefusedError: If ``data`` is not strict YAML.
    """
    text = _text(data, where)
    try:
        loader = _StrictLoader(text)
        loader.where = where
        value = loader.get_single_data()
    except RecursionError:
        raise _too_deep(where) from None
    except RefusedError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _broken(where, str(error)) from None
    _check_values(value, where, 0)
    return value


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(where, str(error)) from None


def _check_values(value: Any, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _too_deep(where)
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise refused("document.key", f"{where} must have text keys, got {shorten(key)}; put it in quotes")
            _check_values(key, where, depth + 1)
            _check_values(item, where, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, where, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _broken(where, f"the number {value}")
    elif isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise _broken(where, "half of a surrogate pair")
    elif value is not None and not isinstance(value, str | bool | int | float):
        raise refused("document.type", f"{where} must hold plain values, got {shorten(value)}; put it in quotes")


def _too_deep(where: str) -> RefusedError:
    return refused("document.depth", f"{where} must have at most {MAX_DEPTH} levels, got more; flatten it")


def _broken(where: str, why: str) -> RefusedError:
    return refused("document.syntax", f"{where} must be strict UTF-8 JSON or YAML, got {shorten(why, 90)}; correct it")
