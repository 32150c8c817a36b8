"""The canonical form of functions: what they do and everything they refer to, not where they are in memory."""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.data.canonical_leaf import qualified_name
from vol3d.data.code_version import code_version
from vol3d.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

FUNCTION_TYPES = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    np.ufunc,
    functools.partial,
)


def canonical_function(value: Any, inner: Callable[[object, str], Any]) -> Any:
    """Return the canonical form (see ``canonical_value``) of a function, a method or a partial.

    Args:
        value: One of ``FUNCTION_TYPES``.
        inner: Gives the form of a part; its second argument is added to the name that errors show.
    """
    if isinstance(value, functools.partial):
        parts = {"func": value.func, "args": value.args, "keywords": value.keywords}
        return {"$partial": {key: inner(part, f".{key}") for key, part in parts.items()}}
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        return {"$method": value.__name__, "self": inner(owner, ".__self__")}
    if isinstance(value, types.FunctionType):
        return _python_function(value, inner)
    module = "numpy" if isinstance(value, np.ufunc) else getattr(value, "__module__", None) or "builtins"
    # torch's C functions claim modules such as torch._C._nn that are no files.
    return {"$function": f"{module}.{value.__name__}", "code": code_version(module.partition(".")[0])}


def _python_function(value: types.FunctionType, inner: Callable[[object, str], Any]) -> Any:
    released = _released_code(value) if _is_importable(value) else None
    if released is not None:
        return {"$function": qualified_name(value), "code": released}
    captured = {
        name: cell.cell_contents for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    }
    read = {key: value.__globals__[key] for key in _global_names(value.__code__) if key in value.__globals__}
    parts = {"defaults": value.__defaults__, "kwdefaults": value.__kwdefaults__, "captured": captured, "globals": read}
    forms = {
        part: {key: inner(item, f".{key}") for key, item in sorted(content.items()) if item is not value}
        if isinstance(content, dict)
        else inner(content, f".{part}")
        for part, content in parts.items()
        if content
    }
    return {"$function": qualified_name(value), "bytecode": _code_digest(value.__code__), **forms}


def _is_importable(value: types.FunctionType) -> bool:
    """Tell whether the function is what its name says; an expression of a config claims the module that ran it."""
    found: Any = sys.modules.get(value.__module__ or "")
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _released_code(value: types.FunctionType) -> str | None:
    """Return the version of the installed module of a function; None for code that must be looked at."""
    try:
        version = code_version(value.__module__)
    except ConfigError:  # a notebook
        return None
    return None if version.startswith("source ") else version


def _global_names(code: types.CodeType) -> set[str]:
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(nested) for nested in code.co_consts if isinstance(nested, types.CodeType)))


def _code_digest(code: types.CodeType) -> str:
    """Digest what a function does, without file name and line numbers."""
    constants = [_constant(item) for item in code.co_consts]
    parts = (code.co_code.hex(), code.co_names, code.co_varnames, code.co_argcount, code.co_flags, constants)
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _constant(item: object) -> str:
    if isinstance(item, types.CodeType):
        return _code_digest(item)
    # The order of a frozenset of texts changes from process to process.
    return f"{type(item).__name__} {sorted(map(repr, item)) if isinstance(item, frozenset) else repr(item)}"
