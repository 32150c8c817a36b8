"""Attacks by the files of a bundle: odd kinds, links, pickles, broken safetensors, and leaks."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any

from attack_configs import with_file
from attack_registry import add, attack
from sharing_bundles import make_bundle

if TYPE_CHECKING:
    from pathlib import Path

# The house rules look for such paths, too.
HOME = "/home"

add("layout_logging_conf", "layout.kind", with_file("configs/logging.conf", b"[handlers]\nkeys=x\n"))
add("layout_shared_object", "layout.kind", with_file("models/net.so", b"\x7fELF"))
add("layout_script", "layout.script", with_file("scripts/net.py", b"import os\n"))
add("layout_torchscript", "layout.script", with_file("models/model.ts", b"PK"))
add("layout_json_in_docs", "layout.kind", with_file("docs/cases.json", b"{}\n"))
add("layout_pickle", "layout.kind", with_file("models/data.pkl", b"\x80\x04."))
add("layout_large_text", "layout.size", with_file("docs/long.txt", b"x" * (4 * 1024 * 1024 + 1)))
add("layout_windows_name", "path.name", with_file("docs/con.md", b"# x\n"))
add("layout_case_clash", "path.clash", with_file("docs/readme.md", b"# x\n"))


@attack("layout.link")
def layout_link(folder: Path) -> list[str]:
    root = make_bundle(folder, weights_seed=None)
    (root / "docs/secret.md").symlink_to("/etc/hostname")
    return ["check", str(root)]


@attack("layout.link")
def layout_linked_folder(folder: Path) -> list[str]:
    root = make_bundle(folder, weights_seed=None)
    (root / "scripts").symlink_to("/usr/lib")
    return ["check", str(root)]


@attack("layout.special")
def layout_fifo(folder: Path) -> list[str]:
    root = make_bundle(folder, weights_seed=None)
    os.mkfifo(root / "configs/train.yaml")
    return ["check", str(root)]


@attack("layout.depth")
def layout_deep(folder: Path) -> list[str]:
    root = make_bundle(folder, weights_seed=None)
    (root / "scripts" / "/".join("d" * 60)).mkdir(parents=True)
    return ["check", str(root)]


@attack("layout.missing")
def layout_no_licence(folder: Path) -> list[str]:
    root = make_bundle(folder, weights_seed=None)
    (root / "LICENSE").unlink()
    return ["check", str(root)]


@attack("path.count")
def layout_many_files(folder: Path) -> list[str]:
    root = make_bundle(folder, weights_seed=None)
    for number in range(2001):
        (root / f"docs/n{number}.md").write_text("x")
    return ["check", str(root)]


class _Reduce:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def zip_checkpoint(data: bytes, *others: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for other, content in others:
            archive.writestr(other, content)
    return stream.getvalue()


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


PICKLES = {
    "system": pickle.dumps(_Reduce(os.system, "touch canary"), 2),
    "system_protocol_4": pickle.dumps(_Reduce(os.system, "touch canary"), 4),
    "eval": pickle.dumps(_Reduce(eval, "1"), 2),
    "getattr": pickle.dumps({"w": _Reduce(getattr, "a", "upper")}, 2),
    "inst": b"(S'id'\nios\nsystem\n.",
    "extension": b"\x80\x02\x82\x01.",
    "metatensor": b"\x80\x02cmonai.data.meta_tensor\nMetaTensor\n)R.",
    "numpy": b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n)R.",
}
for name, data in PICKLES.items():
    add(f"checkpoint_{name}", "weights.pickle", with_file("models/model.pt", zip_checkpoint(data)))
for name, content in (
    ("raw_pickle", pickle.dumps(_Reduce(os.system, "touch canary"))),
    ("no_pickle", zip_checkpoint(b"")[:100]),
    ("cut_pickle", zip_checkpoint(b"\x80\x02}(X\xff\xff\xff\x7f")),
    (
        "torchscript",
        zip_checkpoint(b"\x80\x02}.", ("archive/code/net.py", b"def f(): pass"), ("archive/constants.pkl", b"")),
    ),
):
    add(f"checkpoint_{name}", "weights.format", with_file("models/model.pt", content))
add(
    "checkpoint_path",
    "leak.path",
    with_file("models/model.pt", zip_checkpoint(pickle.dumps({f"{HOME}/j.doe/scans/P0012345.nii.gz": 1}, 2))),
)
for name, content in (
    ("overlap", safetensors({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12))),
    ("gap", safetensors({"a": tensor([1], 4, 8)}, bytes(8))),
    ("short", safetensors({"a": tensor([4], 0, 16)}, bytes(8))),
    ("trailing", safetensors({"a": tensor([1], 0, 4)}, bytes(8))),
    ("long_header", struct.pack("<Q", 1 << 62) + b"{}"),
    ("negative", safetensors({"a": tensor([-1], 0, -4)})),
    ("wrong_size", safetensors({"a": tensor([1 << 40, 1 << 40], 0, 4)}, bytes(4))),
    ("odd_type", safetensors({"a": tensor([1], 0, 4, "PICKLE")}, bytes(4))),
    ("duplicate", safetensors(b'{"a": 1, "a": 2}')),
    ("metadata", safetensors({"__metadata__": {"path": "x"}, "a": tensor([1], 0, 4)}, bytes(4))),
    ("empty", b""),
):
    code = "document.duplicate" if name == "duplicate" else "weights.safetensors"
    add(f"safetensors_{name}", code, with_file("models/model.safetensors", content))

for name, code, text in (
    ("home", "leak.path", f"trained in {HOME}/j.doe/work\n"),
    ("windows_home", "leak.path", "see C:\\Users\\doe\\scan\n"),
    ("share", "leak.path", "from \\\\server01\\radiology\n"),
    ("dicom_name", "leak.name", "first case: DOE^JOHN\n"),
    ("patient_name", "leak.name", "PatientName: Doe, John\n"),
    ("birth", "leak.birth", "patient born 12.03.1961\n"),
    ("birth_tag", "leak.birth", '{"PatientBirthDate": "19610312"}\n'),
    ("uid", "leak.uid", "1.2.840.113619.2.55.3.604688119.971.1267\n"),
    ("record_number", "leak.identifier", "MRN 00123456\n"),
    ("patient_id", "leak.identifier", "PatientID: PAT-0012345\n"),
    ("social_security", "leak.identifier", "078-05-1120\n"),
):
    add(f"leak_{name}", code, with_file("docs/notes.md", text.encode()))
add("leak_golden", "leak.identifier", with_file("docs/golden.json", b'{"PatientID": "PAT-0012345"}\n'))
add("leak_config_comment", "leak.path", with_file("configs/train.yaml", b"a: 1 # /scratch/doe/run7\n"))


@attack("layout.kind")
def leak_nifti_header(folder: Path) -> list[str]:
    header = bytearray(352)
    header[0:4] = struct.pack("<i", 348)
    header[148:156] = b"DOE^JOHN"
    header[344:348] = b"n+1\0"
    return with_file("docs/example.nii.gz", gzip.compress(bytes(header)))(folder)


@attack("leak.term")
def leak_private_term(folder: Path) -> list[str]:
    (folder / "terms.txt").write_text("Sankt Beispiel\n")
    arguments = with_file("docs/notes.md", b"data of sankt beispiel\n")(folder)
    return [*arguments, "--private-terms", str(folder / "terms.txt")]
