"""The canonical form of values without parts: numbers, texts, paths, dtypes, arrays, tensors, classes, modules."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import pathlib
import re
import types
from typing import Any

import numpy as np
import torch

from vol3d.data.code_version import code_version
from vol3d.data.content_digest import ContentDigests

NOT_A_LEAF = object()
MAX_SHOWN_ELEMENTS = 16
_digests = ContentDigests()


def qualified_name(thing: Any) -> str:
    """Return the dotted name of a class or function."""
    return f"{getattr(thing, '__module__', None) or 'builtins'}.{getattr(thing, '__qualname__', thing.__name__)}"


@functools.singledispatch
def canonical_leaf(_value: object) -> Any:
    """Return the canonical form (see ``canonical_value``) of a leaf; ``NOT_A_LEAF`` for anything else."""
    return NOT_A_LEAF


@canonical_leaf.register(type(None))
@canonical_leaf.register(bool)
@canonical_leaf.register(int)
@canonical_leaf.register(float)
def _plain(value: Any) -> Any:
    return value if value is None or type(value) is bool else int(value) if isinstance(value, int) else float(value)


@canonical_leaf.register
def _text(value: str) -> Any:
    # Only text that looks like a path: a key called "image" must not depend on the working directory.
    is_file = os.sep in value and os.path.isfile(value)  # noqa: PTH113
    return {"$file": str(value), "sha256": _digests.digest(value)} if is_file else str(value)


@canonical_leaf.register
def _path(value: pathlib.PurePath) -> Any:
    return {"$path": str(value), "sha256": _digests.digest(value) if pathlib.Path(value).is_file() else None}


@canonical_leaf.register
def _complex(value: complex) -> Any:
    return {"$complex": [value.real, value.imag]}


@canonical_leaf.register
def _bytes(value: bytes) -> Any:
    return {"$bytes": hashlib.sha256(value).hexdigest(), "length": len(value)}


@canonical_leaf.register
def _pattern(value: re.Pattern) -> Any:  # type: ignore[type-arg]
    return {"$regex": value.pattern if isinstance(value.pattern, str) else value.pattern.hex(), "flags": value.flags}


@canonical_leaf.register(np.ndarray)
@canonical_leaf.register(np.generic)
def _array(value: np.ndarray[Any, Any]) -> Any:
    array = np.ascontiguousarray(value)
    if array.dtype.hasobject:
        return NOT_A_LEAF
    content = hashlib.sha256(array.tobytes()).hexdigest()
    form = {"$array": array.dtype.str, "shape": list(value.shape), "sha256": content}
    return form | ({"values": repr(value.tolist())} if value.size <= MAX_SHOWN_ELEMENTS else {})


@canonical_leaf.register
def _tensor(value: torch.Tensor) -> Any:
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        return NOT_A_LEAF
    plain = value.detach().cpu().contiguous()
    content = hashlib.sha256(plain.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
    form = {"$tensor": str(value.dtype), "shape": list(value.shape), "device": str(value.device), "sha256": content}
    return form | ({"values": repr(plain.tolist())} if value.numel() <= MAX_SHOWN_ELEMENTS else {})


@canonical_leaf.register(torch.dtype)
@canonical_leaf.register(torch.device)
@canonical_leaf.register(np.dtype)
def _named_constant(value: object) -> Any:
    return {f"${type(value).__name__.split('[')[0]}": str(value)}


@canonical_leaf.register
def _class(value: type) -> Any:
    return {"$class": qualified_name(value), "code": code_version(value.__module__)}


@canonical_leaf.register
def _module(value: types.ModuleType) -> Any:
    return {"$module": value.__name__, "code": code_version(value.__name__)}


@canonical_leaf.register
def _logger(value: logging.Logger) -> Any:
    return {"$logger": value.name}
