"""The fingerprint of the deterministic prefix of a transform list.

The *prefix* is everything before the first random transform, as in MONAI's cached datasets: its result depends on
the input files only. The fingerprint keeps the canonical form of every transform, not just a hash, so that two of
them can be compared parameter by parameter.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import torch
from monai.data import get_track_meta
from monai.transforms import Compose, RandomizableTrait, Transform

from vol3d.data.canonical_value import Json, canonical_digest, canonical_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Readers and numerics whose release may change a voxel. A reader is chosen by file name at run time, so all count.
_LIBRARIES = ("itk", "monai", "nibabel", "numpy", "pydicom", "scipy", "scikit-image", "simpleitk", "torch")


@dataclass(frozen=True)
class TransformFingerprint:
    """What determines the result of a transform prefix, beside its input.

    Args:
        transforms: Canonical form of each transform, in order.
        settings: Process-wide settings that change results.
        versions: Releases of the libraries that read and compute.
    """

    transforms: tuple[Json, ...]
    settings: dict[str, Json] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over everything."""
        return canonical_digest(self.as_dict())

    def as_dict(self) -> dict[str, Json]:
        """Return plain JSON; ``from_dict(json.loads(json.dumps(f.as_dict()))) == f``."""
        return {"transforms": list(self.transforms), "settings": self.settings, "versions": self.versions}

    @classmethod
    def from_dict(cls, form: dict[str, Json]) -> TransformFingerprint:
        """Return the fingerprint that :meth:`as_dict` wrote."""
        return cls(tuple(form["transforms"]), form["settings"], form["versions"])

    def differences(self, newer: TransformFingerprint) -> list[str]:
        """Say what changed from this fingerprint to a newer one, one line per parameter; empty if nothing did."""
        lines = _transform_changes([*self.transforms], [*newer.transforms])
        for kind in ("settings", "versions"):
            old, new = dict(_flatten(getattr(self, kind), "")), dict(_flatten(getattr(newer, kind), ""))
            lines += [f"{kind[:-1]} {line}" for line in _changes(old, new)]
        return lines


def fingerprint_transforms(transforms: Sequence[Any]) -> TransformFingerprint:
    """Return the fingerprint of deterministic transforms that are applied in this order.

    Raises:
        ConfigError: If a parameter cannot be fingerprinted; the message names transform and parameter.
    """
    forms = tuple(
        canonical_value(transform, f"transform {index} ({type(transform).__name__})")
        for index, transform in enumerate(transforms)
    )
    settings = {"track_meta": bool(get_track_meta()), "default_dtype": str(torch.get_default_dtype())}
    return TransformFingerprint(forms, settings, library_versions())


def library_versions() -> dict[str, str]:
    """Return the versions of the installed libraries on which a preprocessed volume depends."""
    return dict(_library_versions())


@cache
def _library_versions() -> tuple[tuple[str, str], ...]:
    # Reading the metadata of a package takes half a millisecond; they stay the same as long as the process.
    versions = []
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append((name, importlib.metadata.version(name)))
    return tuple(versions)


def as_compose(transform: Any) -> Compose:
    """Return a ``Compose`` of one transform, of a list of them, or the one that is given."""
    return transform if type(transform) is Compose else Compose(transform)


def first_random_index(compose: Compose) -> int:
    """Return how many transforms come before the first random one."""
    transforms = compose.transforms
    return next((index for index, transform in enumerate(transforms) if _is_random(transform)), len(transforms))


def fingerprint_prefix(compose: Compose) -> TransformFingerprint:
    """Return the fingerprint of what comes before the first random transform, see :func:`fingerprint_transforms`."""
    return fingerprint_transforms(compose.transforms[: first_random_index(compose)])


def _is_random(transform: Any) -> bool:
    # A Compose is Randomizable by class, whatever it holds. A bare function may draw numbers, nobody can tell.
    if type(transform) is Compose:
        return any(_is_random(inner) for inner in transform.transforms)
    return isinstance(transform, RandomizableTrait) or not isinstance(transform, Transform)


def _transform_changes(old: list[Json], new: list[Json]) -> list[str]:
    old_names, new_names = ([_class_name(form) for form in forms] for forms in (old, new))
    if old_names == new_names:
        return [
            f"transform {index} {name}: {line}"
            for index, name in enumerate(old_names)
            for line in _changes(dict(_flatten(old[index], "")), dict(_flatten(new[index], "")))
        ]
    if sorted(old_names) == sorted(new_names):
        return [f"order of transforms: {' > '.join(old_names)} -> {' > '.join(new_names)}"]
    return [f"list of transforms: {' > '.join(old_names)} -> {' > '.join(new_names)}"]


def _class_name(form: Json) -> str:
    name = form.get("$object", "?") if isinstance(form, dict) else "?"
    return str(name).rpartition(".")[2]


def _changes(old: dict[str, Json], new: dict[str, Json]) -> list[str]:
    paths = [*old, *(path for path in new if path not in old)]
    missing = "(none)"
    shown = {path: (_show(old.get(path, missing)), _show(new.get(path, missing))) for path in paths}
    return [
        f"{path} {before} -> {after}"
        for path, (before, after) in shown.items()
        if path not in old or path not in new or json.dumps(old[path]) != json.dumps(new[path])
    ]


def _show(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flatten(form: Json, path: str) -> Iterator[tuple[str, Json]]:
    """Yield every leaf with its readable path; ``state`` and ``$tuple`` levels are not worth a name."""
    if isinstance(form, dict) and "values" in form:
        yield path, form["values"]
    elif isinstance(form, dict):
        for key, item in form.items():
            inner = path if key in ("state", "$tuple", "value") else f"{path}.{key}".lstrip(".")
            yield from _flatten(item, inner)
    elif isinstance(form, list):
        for index, item in enumerate(form):
            yield from _flatten(item, f"{path}[{index}]")
    else:
        yield path, form
