"""From the JSON of a packed case to a function that builds the case, quickly and anew at each call.

A small case is mostly metadata: a NIfTI header is forty arrays of a few bytes. What can be found out once (which
class, which dtype, where the bytes lie) is found out when the tree is compiled; building then copies one buffer, on
which all small arrays of the case are laid out, and a few dictionaries. Every call makes new objects, so that nobody
can change the cached ones.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import monai.utils.enums
import numpy as np
import torch
from monai.data import MetaTensor

if TYPE_CHECKING:
    from vol3d.data.canonical_value import Json
    from vol3d.data.packed_array import PackedArray

_ALIGNMENT = 16


@dataclass(frozen=True)
class BuildInput:
    """What one building of a case starts from.

    Args:
        arrays: The packed arrays of the case.
        texts: Leaves of the input item by their place; they replace the references to them.
        small: New memory with the bytes of all small arrays.
    """

    arrays: tuple[PackedArray, ...]
    texts: Mapping[str, Any]
    small: bytearray


_Part = Callable[[BuildInput], Any]


@dataclass(frozen=True)
class _Constant:
    """A value that nobody can change, so that every built case may hold the same."""

    value: Any

    def __call__(self, _: BuildInput) -> Any:
        return self.value


class CaseTree:
    """A compiled tree.

    Args:
        form: The tree as ``case_packer`` made it.
    """

    def __init__(self, form: Json) -> None:
        self._small = bytearray()
        self._compilers: dict[str, Callable[[Json], _Part]] = {
            "item": _item,
            "path": self._path,
            "dict": self._dict,
            "tuple": self._tuple,
            "size": lambda form: _Constant(torch.Size(form["items"])),
            "enum": lambda form: _Constant(getattr(getattr(monai.utils.enums, form["class"]), form["name"])),
            "torch": _torch,
            "numpy": _numpy,
            "array": self._array,
            "scalar": lambda form: _Constant(np.frombuffer(bytes.fromhex(form["hex"]), form["dtype"])[0]),
            "objects": self._objects,
            "tensor": self._tensor,
            "meta": self._meta,
        }
        self._build = self._compile(form)

    def build(self, arrays: tuple[PackedArray, ...], texts: Mapping[str, Any]) -> Any:
        """Return the case, in new memory; see :class:`BuildInput`."""
        return self._build(BuildInput(arrays, texts, self._small.copy()))

    def _compile(self, form: Json) -> _Part:
        if isinstance(form, dict):
            kind = form.get("$")
            if kind is not None:
                return self._compilers[kind](form)
            return _with_parts({key: self._compile(item) for key, item in form.items()})
        if isinstance(form, list):
            return _with_items([self._compile(item) for item in form])
        return _Constant(form)

    def _path(self, form: Json) -> _Part:
        text = self._compile(form["text"])
        return lambda given: pathlib.Path(text(given))

    def _dict(self, form: Json) -> _Part:
        pairs = [(self._compile(key), self._compile(item)) for key, item in form["pairs"]]
        constant = {key.value: item for key, item in pairs if isinstance(key, _Constant)}
        if len(constant) == len(pairs):
            return _with_parts(constant)
        return lambda given: {key(given): item(given) for key, item in pairs}

    def _tuple(self, form: Json) -> _Part:
        parts = [self._compile(item) for item in form["items"]]
        if all(isinstance(part, _Constant) for part in parts):
            return _Constant(tuple(part.value for part in parts if isinstance(part, _Constant)))
        return lambda given: tuple([part(given) for part in parts])

    def _array(self, form: Json) -> _Part:
        if "index" in form:
            index = form["index"]
            return lambda given: given.arrays[index].unpack().cpu().numpy()
        dtype, shape, content = np.dtype(form["dtype"]), tuple(form["shape"]), bytes.fromhex(form["hex"])
        self._small.extend(bytes(-len(self._small) % _ALIGNMENT))
        offset = len(self._small)
        self._small.extend(content)
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"small array must have {math.prod(shape)} values of {dtype}, got {len(content)} bytes")
        # Of a bytearray, unlike of bytes, numpy makes an array that can be written to.
        return lambda given: np.ndarray(shape, dtype, given.small, offset)

    def _objects(self, form: Json) -> _Part:
        items, shape = self._compile(form["items"]), form["shape"]

        def build(given: BuildInput) -> Any:
            values = items(given)
            array = np.empty(len(values), dtype=object)
            array[:] = values
            return array.reshape(shape)

        return build

    def _tensor(self, form: Json) -> _Part:
        if "index" not in form:
            array = self._array(form["data"])
            return lambda given: torch.from_numpy(array(given))
        index = form["index"]
        if "device" not in form:
            return lambda given: given.arrays[index].unpack()
        device = torch.device(form["device"])
        return lambda given: given.arrays[index].unpack().to(device)

    def _meta(self, form: Json) -> _Part:
        data, state = self._compile(form["data"]), self._compile(form["state"])

        def build(given: BuildInput) -> MetaTensor:
            tensor: MetaTensor = data(given).as_subclass(MetaTensor)
            tensor.__dict__ = state(given)
            return tensor

        return build


def _with_parts(parts: dict[Any, _Part]) -> _Part:
    """Return what builds a dictionary; the constant part of it is one copy."""
    template = {key: part.value if isinstance(part, _Constant) else None for key, part in parts.items()}
    variable = [(key, part) for key, part in parts.items() if not isinstance(part, _Constant)]

    def build(given: BuildInput) -> dict[Any, Any]:
        result = template.copy()
        for key, part in variable:
            result[key] = part(given)
        return result

    return build


def _with_items(parts: list[_Part]) -> _Part:
    """Return what builds a list."""
    if all(isinstance(part, _Constant) for part in parts):
        template = [part.value for part in parts if isinstance(part, _Constant)]
        return lambda _: template.copy()
    return lambda given: [part(given) for part in parts]


def _item(form: Json) -> _Part:
    at, is_expanded = form["at"], "expanded" in form

    def build(given: BuildInput) -> str:
        text = str(given.texts[at])
        return str(pathlib.Path(text).expanduser()) if is_expanded else text

    return build


def _torch(form: Json) -> _Part:
    return _Constant(torch.device(form["name"]) if form["kind"] == "device" else getattr(torch, form["name"]))


def _numpy(form: Json) -> _Part:
    dtype = np.dtype(form["name"])
    return _Constant(dtype.type if form["is_class"] else dtype)
