"""Weights travel as safetensors, which hold numbers and nothing else; ``models/model.pt`` is rebuilt from them.

Checkpoints written by torch are pickles, that is, programs. Here their opcodes are listed, never run: only what a
plain state dict needs may be in them. Converting them at the sender and rebuilding them at the receiver are the only
places of this package that import torch, and they load with ``weights_only=True``.
"""

from __future__ import annotations

import json
import math
import pickletools
import re
import zipfile
from typing import TYPE_CHECKING, Any

from vol3d.data.atomic_write import atomic_path
from vol3d.errors import RefusedError
from vol3d.sharing.refusal import lacking, refused, shorten
from vol3d.sharing.strict_documents import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    import torch

NESTING_KEY = "vol3d.nesting"
"""Safetensors metadata: the key below which a checkpoint keeps its state dict, as in ``{"model": {...}}``."""

MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_PICKLE_BYTES = 16 * 1024 * 1024
_ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL"), 1),
}
_HARMLESS_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(?:tensor_v2|parameter)"
    r"|torch (?:Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)
_TEXT_OPCODES = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})


def check_safetensors(path: Path, where: str) -> dict[str, Any]:
    """Return the header of a safetensors file after checking that it describes the file exactly.

    Raises:
        RefusedError: If the header is not strict JSON, a tensor's bytes do not fit its shape, or tensors overlap,
            leave gaps or end elsewhere than the file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise _bad(where, f"a header of {length} bytes in a file of {size}")
        header = parse_json(stream.read(length), where)
    if not isinstance(header, dict):
        raise _bad(where, "a header that is no mapping")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or set(metadata) - {NESTING_KEY, "format"}:
        raise _bad(where, f"metadata {shorten(metadata)}")
    spans = sorted(_span(name, entry, where) for name, entry in header.items() if name != "__metadata__")
    position = 0
    for begin, end in spans:
        if begin != position:
            raise _bad(where, f"tensors that overlap or leave a gap at byte {begin}")
        position = end
    if position != size - 8 - length:
        raise _bad(where, f"{size - 8 - length} bytes of data for tensors of {position}")
    return header


def _span(name: str, entry: Any, where: str) -> tuple[int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _bad(where, f"tensor {shorten(name)} without dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if len(numbers) != len(shape) + 2 or not all(type(n) is int and n >= 0 for n in numbers) or len(shape) > 8:
        raise _bad(where, f"tensor {shorten(name)} with shape {shorten(shape)}")
    if entry["dtype"] not in _ITEM_BYTES:
        raise _bad(where, f"tensor {shorten(name)} of type {shorten(entry['dtype'])}")
    if offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[entry["dtype"]]:
        raise _bad(where, f"tensor {shorten(name)} whose bytes do not fit its shape")
    return offsets[0], offsets[1]


def _bad(where: str, got: str) -> RefusedError:
    return refused("weights.safetensors", f"{where} must be a sound safetensors file, got {got}; save it again")


def check_checkpoint(path: Path, where: str) -> list[str]:
    """Return the texts inside a torch checkpoint after checking that its pickle builds tensors and nothing else.

    Raises:
        RefusedError: If the file is not a zip checkpoint, or its pickle names anything but tensors and dictionaries.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
            if len(names) != 1 or any("/code/" in n or n.endswith("constants.pkl") for n in archive.namelist()):
                raise refused("weights.format", f"{where} must be a state dict saved by torch.save, got TorchScript")
            if archive.getinfo(names[0]).file_size > MAX_PICKLE_BYTES:
                raise refused("weights.format", f"{where} must have a small pickle, got a large one; save a state dict")
            data = archive.read(names[0])
        texts, previous = [], ["", ""]
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "STACK_GLOBAL"):
                name = argument if opcode.name == "GLOBAL" else " ".join(previous)
                _check_global(str(name), where)
            elif opcode.name in ("INST", "EXT1", "EXT2", "EXT4"):
                raise _not_only_tensors(where, opcode.name)
            elif opcode.name in _TEXT_OPCODES:
                texts.append(str(argument))
                previous = [previous[1], str(argument)]
    except RefusedError:
        raise
    except (zipfile.BadZipFile, ValueError, KeyError, NotImplementedError, EOFError, OSError) as error:
        raise refused(
            "weights.format", f"{where} must be a checkpoint that torch.save wrote, got {shorten(str(error))}"
        ) from None
    return texts


def _check_global(name: str, where: str) -> None:
    if not _HARMLESS_GLOBALS.fullmatch(name):
        raise _not_only_tensors(where, name)


def _not_only_tensors(where: str, got: str) -> RefusedError:
    hint = "save network.state_dict() with plain tensors"
    return refused("weights.pickle", f"{where} must hold tensors only, got {shorten(got)}; {hint}")


def checkpoint_to_safetensors(checkpoint: Path, target: Path) -> None:
    """Write the tensors of a torch checkpoint as safetensors; the same tensors give the same bytes.

    Raises:
        RefusedError: If the checkpoint is not ``{name: tensor}`` or ``{"model": {name: tensor}}``.
    """
    library = safetensors_library()
    check_checkpoint(checkpoint, checkpoint.name)
    nesting, tensors = _state_dict(_load(checkpoint), checkpoint.name)
    metadata = {NESTING_KEY: nesting} if nesting else None
    with atomic_path(target) as aside:
        # A copy each: tied tensors share memory, which safetensors refuses.
        library.save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, aside, metadata)


def safetensors_library() -> Any:
    """Return the module ``safetensors.torch``; imports torch.

    Raises:
        RequirementError: If safetensors is not installed.
    """
    try:
        import safetensors.torch  # noqa: PLC0415 - an extra, and it imports torch
    except ImportError:
        raise lacking(
            "weights.extra", "package safetensors must be installed, got none; pip install 'vol3d[share]'"
        ) from None
    return safetensors.torch


def rebuild_checkpoint(source: Path, target: Path) -> None:
    """Write the ``.pt`` file that MONAI loads, read it back and compare it tensor by tensor with ``source``.

    Raises:
        RefusedError: If what is read back differs.
    """
    import torch  # noqa: PLC0415 - heavy

    header = check_safetensors(source, source.name)
    nesting = header.get("__metadata__", {}).get(NESTING_KEY)
    tensors = safetensors_library().load_file(source)
    with atomic_path(target) as aside:
        torch.save({nesting: tensors} if nesting else tensors, aside)
        check_checkpoint(aside, target.name)
        _, found = _state_dict(_load(aside), target.name)
        same = found.keys() == tensors.keys() and all(_is_same(found[name], tensors[name]) for name in tensors)
        if not same:
            raise refused("weights.rebuilt", f"{target.name} must equal {source.name}, got other tensors; report it")


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch  # noqa: PLC0415 - heavy

    # Bytes, not values: NaN differs from itself, and 0.0 equals -0.0.
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))
    )


def _load(path: Path) -> Any:
    import torch  # noqa: PLC0415 - heavy

    return torch.load(path, map_location="cpu", weights_only=True)


def _state_dict(content: Any, where: str) -> tuple[str | None, dict[str, torch.Tensor]]:
    import torch  # noqa: PLC0415 - heavy

    nesting = None
    if isinstance(content, dict) and len(content) == 1:
        ((key, value),) = content.items()
        if isinstance(value, dict):
            nesting, content = str(key), value
    if not isinstance(content, dict) or not content:
        raise _not_only_tensors(where, type(content).__name__)
    for name, value in content.items():
        if not isinstance(name, str) or type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise _not_only_tensors(where, f"{name}: {type(value).__name__}")
    return nesting, {name: value.detach() for name, value in content.items()}


def describe_tensors(header: dict[str, Any]) -> str:
    """Return ``N tensors, M numbers`` of a checked safetensors header, for reviewers."""
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    return f"{len(shapes)} tensors, {sum(math.prod(shape) for shape in shapes)} numbers"


def header_texts(header: dict[str, Any]) -> str:
    """Return the names and metadata of a checked safetensors header as one text, for the leak scan."""
    return json.dumps([list(header), header.get("__metadata__", {})])
