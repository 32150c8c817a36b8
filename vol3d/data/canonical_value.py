"""The canonical form of a transform's parameters: plain JSON that is equal where the behaviour is equal.

* Numbers, texts, None and plain lists and dictionaries stand for themselves, in their order.
* Everything else becomes a dictionary whose first key starts with ``$`` and says what it is.
* Arrays and tensors are named by dtype, shape and SHA-256 of their bytes; small ones show their values too.
* A class is its name and its :func:`~vol3d.data.code_version.code_version`; an object is its class and its state.
* A Python function is its bytecode, its defaults, the variables that it captured and the globals that it reads.
* A path of an existing file is the digest of its content, so a changed atlas changes the form.

Object ids, memory addresses, random states and what a reader remembers of its last file never enter. A value with
hidden state (an object of a C extension, a generator, a lock) is refused: a guess could serve stale data.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import threading
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vol3d.data.canonical_function import FUNCTION_TYPES, canonical_function
from vol3d.data.canonical_leaf import NOT_A_LEAF, canonical_leaf, qualified_name
from vol3d.data.code_version import code_version
from vol3d.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Json = Any
"""What ``json.dumps`` takes: None, bool, int, float, str, list, dict."""

# State that MONAI's classes keep of their last call, by class name (read in MONAI 1.6.1).
_CALL_STATE = {
    "NibabelReader": {"filenames"},
    "PydicomReader": {"filenames", "has_series"},
    "SaveImage": {"writer_obj", "_data_index"},
    "SavitzkyGolaySmooth": {"img_t"},
    "Compose": {"log_stats"},
}
_RANDOM_OR_LOCAL = (np.random.RandomState, np.random.Generator, torch.Generator, type(threading.local()))
_PY_TPFLAGS_HEAPTYPE = 1 << 9


def canonical_value(value: object, name: str) -> Json:
    """Return the canonical form of a value.

    Args:
        value: A parameter, an array, a function, a transform, or a container of such.
        name: What the value is; the error names it.

    Raises:
        ConfigError: If the value holds something whose behaviour cannot be told from its visible state.
    """
    return _form(value, name, ())


def canonical_digest(form: Json) -> str:
    """Return the SHA-256 (hex) of a canonical form."""
    return hashlib.sha256(json.dumps(form, separators=(",", ":")).encode("utf-8", "surrogatepass")).hexdigest()


def _form(value: object, name: str, above: tuple[int, ...]) -> Json:
    if isinstance(value, enum.Enum):
        return {"$enum": qualified_name(type(value)), "name": value.name}
    form = canonical_leaf(value)
    if form is NOT_A_LEAF:
        if id(value) in above:
            raise ConfigError(f"{name} must not contain itself, got a {type(value).__name__}; break the cycle")
        # The parts get a name that leads to them, and know what they are inside of.
        inner = functools.partial(_inner_form, name, (*above, id(value)))
        form = canonical_function(value, inner) if isinstance(value, FUNCTION_TYPES) else _compound(value, inner, name)
    if isinstance(value, (str, int, float, list, tuple, dict)) and type(value).__module__ != "builtins":
        return {"$subclass": qualified_name(type(value)), "value": form}
    return form


def _inner_form(name: str, above: tuple[int, ...], value: object, suffix: str) -> Json:
    return _form(value, name + suffix, above)


def _compound(value: object, inner: Callable[[object, str], Json], name: str) -> Json:
    if isinstance(value, (dict, types.MappingProxyType)):
        return _mapping(value, inner)
    if isinstance(value, list):
        return [inner(item, f"[{index}]") for index, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": [inner(item, f"[{index}]") for index, item in enumerate(value)]}
    if isinstance(value, (set, frozenset)):
        return {"$set": sorted((inner(item, " item") for item in value), key=canonical_digest)}
    if isinstance(value, (slice, range)):
        return {f"${type(value).__name__}": [inner(part, "") for part in (value.start, value.stop, value.step)]}
    return _object(value, inner, name)


def _mapping(value: Mapping[Any, Any], inner: Callable[[object, str], Json]) -> Json:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: inner(item, f".{key}") for key, item in value.items()}
    return {"$dict": [[inner(key, " key"), inner(item, f"[{key}]")] for key, item in value.items()]}


def _object(value: object, inner: Callable[[object, str], Json], name: str) -> Json:
    kind = type(value)
    if isinstance(value, np.ndarray):  # of objects: canonical_leaf took the others
        return {"$array": "object", "shape": list(value.shape), "values": inner(value.ravel().tolist(), "")}
    if isinstance(value, torch.Tensor):  # MONAI's MetaTensor: canonical_leaf took plain tensors
        return {"$tensor": inner(value.detach().as_subclass(torch.Tensor), ""), "state": inner(dict(vars(value)), "")}
    if not hasattr(value, "__dict__") or _has_hidden_state(kind):
        raise ConfigError(
            f"{name} must be a value that can be fingerprinted, got {qualified_name(kind)}; "
            "use plain values, arrays or functions, or put the transform after the first random one"
        )
    ignored = set().union(*(_CALL_STATE.get(parent.__name__, ()) for parent in kind.__mro__))
    state = {
        key: inner(item, f".{key}")
        for key, item in sorted(vars(value).items())
        if key not in ignored and not isinstance(item, _RANDOM_OR_LOCAL)
    }
    return {"$object": qualified_name(kind), "code": code_version(kind.__module__), "state": state}


def _has_hidden_state(kind: type) -> bool:
    """Tell whether objects keep state outside ``__dict__``: in slots, or in a base class written in C."""
    parents = [parent for parent in kind.__mro__ if parent is not object]
    return any(not parent.__flags__ & _PY_TPFLAGS_HEAPTYPE or parent.__dict__.get("__slots__") for parent in parents)
