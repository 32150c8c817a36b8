"""Make the compact form of a preprocessed case (see ``packed_case``)."""

from __future__ import annotations

import enum
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

import monai.utils.enums
import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils.enums import TraceKeys

from vol3d.data.item_leaves import item_leaves
from vol3d.data.packed_array import PackedArray, pack_array
from vol3d.data.packed_case import PackedCase
from vol3d.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection

    from vol3d.data.canonical_value import Json
    from vol3d.data.case_key import CaseKey

MAX_INLINE_BYTES = 512
"""Smaller arrays (affines, spacings) live in the JSON."""


def pack_case(case: object, item: object, key: CaseKey) -> PackedCase:
    """Return the compact form of a case.

    Args:
        case: Result of the deterministic transforms.
        item: The input item from which it was made.
        key: Of the item.

    Raises:
        DataError: If the case holds something other than tensors, arrays and plain values.
    """
    packer = _Packer(item, key.paths)
    tree = json.dumps(packer.pack(case, "case"), separators=(",", ":")).encode("utf-8", "surrogatepass")
    return PackedCase(tree, tuple(packer.arrays), key.paths_digest if packer.names_input else None)


class _Packer:
    def __init__(self, item: object, path_places: Collection[str]) -> None:
        self.arrays: list[PackedArray] = []
        self.names_input = False
        self._in_metadata = False
        self._references: dict[str, Json] = {}
        self._path_stems: set[str] = set()
        for at, leaf in item_leaves(item):
            if isinstance(leaf, (str, os.PathLike)) and os.fspath(leaf):
                self._add_reference(at, str(leaf), is_path=at in path_places)

    def _add_reference(self, at: str, text: str, *, is_path: bool) -> None:
        if is_path:
            # Which of two equal paths a text refers to cannot be told.
            self.names_input |= text in self._references
            path = pathlib.Path(text).expanduser()
            self._references[str(path)] = {"$": "item", "at": at, "expanded": True}
            self._path_stems |= {part.partition(".")[0] for part in path.parts} - {"", path.anchor}
        self._references[text] = {"$": "item", "at": at}

    def pack(self, value: Any, name: str) -> Json:
        """Return the tree of a value; its large arrays go to ``arrays``."""
        if value is None or type(value) in (bool, int, float):
            return value
        if type(value) is str:
            return self._text(value)
        if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
            return self._array(value, name)
        return self._container(value, name) if isinstance(value, (dict, list, tuple)) else self._constant(value, name)

    def _container(self, value: Any, name: str) -> Json:
        if isinstance(value, dict):
            if self._in_metadata and TraceKeys.ID in value and TraceKeys.CLASS_NAME in value:
                # The id of a transform is its address; NONE makes Invertd accept it in any process.
                value = {**value, TraceKeys.ID: TraceKeys.NONE}
            if all(type(key) is str and key != "$" for key in value):
                return {key: self.pack(item, f"{name}.{key}") for key, item in value.items()}
            pairs = [[self.pack(key, f"{name} key"), self.pack(item, f"{name}.{key}")] for key, item in value.items()]
            return {"$": "dict", "pairs": pairs}
        forms = [self.pack(item, f"{name}[{index}]") for index, item in enumerate(value)]
        kind = "size" if isinstance(value, torch.Size) else "tuple"
        return forms if isinstance(value, list) else {"$": kind, "items": forms}

    def _constant(self, value: Any, name: str) -> Json:
        if isinstance(value, enum.Enum) and getattr(monai.utils.enums, type(value).__name__, None) is type(value):
            return {"$": "enum", "class": type(value).__name__, "name": value.name}
        if isinstance(value, os.PathLike):
            return {"$": "path", "text": self._text(os.fspath(value))}
        if isinstance(value, (torch.dtype, torch.device)):
            return {"$": "torch", "kind": type(value).__name__, "name": str(value).removeprefix("torch.")}
        if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
            return {"$": "numpy", "is_class": isinstance(value, type), "name": np.dtype(value).str}
        raise DataError(
            f"{name} must be a tensor, an array or a plain value to be cached, got {type(value).__name__}; "
            "delete it with DeleteItemsd, or make it after the first random transform"
        )

    def _text(self, value: str) -> Json:
        reference = self._references.get(value)
        if reference is None and not self.names_input and any(stem in value for stem in self._path_stems):
            self.names_input = True
        return value if reference is None else reference

    def _array(self, value: Any, name: str) -> Json:
        if isinstance(value, torch.Tensor):
            return self._tensor(value, name)
        if value.dtype.hasobject:
            return {"$": "objects", "shape": list(value.shape), "items": self.pack(value.ravel().tolist(), name)}
        # torch knows neither texts, nor long doubles, nor foreign byte orders.
        is_numeric = value.dtype.isnative and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8
        if value.nbytes > MAX_INLINE_BYTES and is_numeric:
            self.arrays.append(pack_array(torch.from_numpy(np.ascontiguousarray(value))))
            return {"$": "array", "index": len(self.arrays) - 1}
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {"$": kind, "dtype": value.dtype.str, "shape": list(value.shape), "hex": value.tobytes().hex()}

    def _tensor(self, value: torch.Tensor, name: str) -> Json:
        if isinstance(value, MetaTensor):
            # The private attributes of one MONAI release, whose version is part of the key.
            data = self._tensor(value.as_tensor(), name)
            self._in_metadata = True
            state = self.pack(vars(value), name)
            self._in_metadata = False
            return {"$": "meta", "data": data, "state": state}
        is_small = value.numel() * value.element_size() <= MAX_INLINE_BYTES and value.dtype != torch.bfloat16
        if self._in_metadata and is_small:
            return {"$": "tensor", "data": self._array(value.detach().cpu().numpy(), name)}
        self.arrays.append(pack_array(value))
        form: Json = {"$": "tensor", "index": len(self.arrays) - 1}
        return form if value.device.type == "cpu" else form | {"device": str(value.device)}
