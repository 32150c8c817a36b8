"""Config files of a bundle combined into one, with checked overrides; evaluates nothing and imports no torch.

MONAI 1.6 combines files the same way (a later file replaces keys of an earlier one; ``a::b`` reaches into ``a``), but
accepts overrides of keys that do not exist, silently: ``--roi_sise`` changes nothing. Here an unknown key is refused.
MONAI's ``+key``, which appends, is refused too: an overlay overrides by name.
"""

from __future__ import annotations

import copy
import difflib
from typing import TYPE_CHECKING, Any

import yaml

from vol3d.data.path_characters import check_path_characters
from vol3d.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SEPARATOR = "::"
"""Between the levels of an id, as in ``train::trainer::max_epochs``."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, of which YAML silently keeps the last."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_layers(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the combined config of several files, base first.

    Raises:
        BundleError: If a file cannot be read, is not a YAML mapping, writes a key twice, appends with ``+key``, or
            reaches into what no earlier file defines.
    """
    config: dict[str, Any] = {}
    for path in paths:
        try:
            layer = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise BundleError(f"config {path.name} must be readable YAML, got: {reason}") from error
        if not isinstance(layer, dict):
            raise BundleError(f"config {path.name} must be a mapping of names, got {type(layer).__name__}")
        for key, value in layer.items():
            _place(config, str(key), value, path.name)
    return config


def _place(config: dict[str, Any], key: str, value: Any, file_name: str) -> None:
    """Put the value of one key of a layer where MONAI would put it."""
    if key.startswith("+"):
        raise BundleError(f"config {file_name} must override by name, got {key!r}; write the whole value of {key[1:]}")
    *parents, last = key.split(SEPARATOR)
    place: Any = config
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise BundleError(
            f"config {file_name} must refine what an earlier file defines, got {key!r}; check its spelling"
        )
    place[last] = value


def config_ids(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the id of every named value, nested ones as ``a::b``.

    Example:
        >>> list(config_ids({"train": {"max_epochs": 3}, "seed": 0}))
        ['train', 'train::max_epochs', 'seed']
    """
    for key, value in config.items():
        name = f"{prefix}{key}"
        yield name
        if isinstance(value, dict):
            yield from config_ids(value, f"{name}{SEPARATOR}")


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``key=value`` and read the value as YAML (``true``, ``3``, ``[1, 2]``, text).

    Raises:
        ConfigError: If there is no ``=`` or the value is not YAML.

    Example:
        >>> parse_assignment("roi_size=[64, 64, 32]")
        ('roi_size', [64, 64, 32])
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set must have the form key=value, got {text!r}; for example --set tta=true")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key} must have a YAML value, got {value!r}; quote it as text") from error


def override(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``config`` with some ids changed.

    Args:
        config: The combined config.
        changes: New values by id; ``a::b`` reaches into ``a``.

    Raises:
        ConfigError: If an id does not exist; names the nearest.
        UsageError: If a text, for example a path, holds characters that MONAI's config parser would change.

    Example:
        >>> override({"a": {"b": 1}}, {"a::b": 2})
        {'a': {'b': 2}}
    """
    known = list(config_ids(config))
    result = copy.deepcopy(dict(config))
    for name, value in changes.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            remedy = f"did you mean {near[0]}?" if near else "see the bundle's configs for its keys"
            raise ConfigError(f"config key must exist in the bundle, got {name!r}; {remedy}")
        if isinstance(value, str) and not value.startswith(("$", "@")):  # expressions and references are MONAI's own
            check_path_characters(value)
        *parents, last = name.split(SEPARATOR)
        place: Any = result
        for parent in parents:
            place = place[parent]
        place[last] = value
    return result
