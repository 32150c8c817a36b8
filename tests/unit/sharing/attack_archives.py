"""Attacks by packed bundles and their locks."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

from attack_registry import Attack, add, attack
from sharing_bundles import NAME, KeyPair, make_bundle

from vol3d.sharing.archive import read_head
from vol3d.sharing.pack import pack_bundle, sign_archive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def packed(folder: Path, key: KeyPair | None = None, **changes: Any) -> Path:
    root = make_bundle(folder / "own", weights_seed=None, **changes)
    path = pack_bundle(root, folder).path
    if key is not None:
        sign_archive(path, key.private)
    return path


def with_bytes(change: Callable[[bytes], bytes]) -> Attack:
    def make(folder: Path) -> list[str]:
        path = packed(folder)
        path.write_bytes(change(path.read_bytes()))
        return ["verify", str(path), "--level", "integrity"]

    return make


def flip(position: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def after_lock(data: bytes) -> int:
    size = int(data[124:135], 8)
    return 512 + size + -size % 512


for name, code, change in (
    ("header_mode", "archive.header", flip(101)),
    ("header_checksum", "archive.header", flip(150)),
    ("lock_byte", "", flip(600)),
    ("lock_padding", "archive.short", lambda d: flip(after_lock(d) - 1)(d)),
    ("file_header", "archive.header", lambda d: flip(after_lock(d) + 130)(d)),
    ("file_byte", "file.sha256", lambda d: flip(after_lock(d) + 513)(d)),
    ("file_padding", "archive.padding", lambda d: flip(after_lock(d) + 1023)(d)),
    ("end", "archive.end", lambda d: flip(len(d) - 1)(d)),
    ("half", "", lambda d: d[: len(d) // 2]),
    ("no_end", "archive.end", lambda d: d[:-512]),
    ("appended", "archive.end", lambda d: d + b"\0"),
    ("empty", "archive.header", lambda _: b""),
    ("noise", "archive.header", lambda _: hashlib.shake_256(b"x").digest(5000)),
    ("compressed", "archive.header", gzip.compress),
    ("bomb", "archive.header", lambda _: gzip.compress(bytes(10_000_000))),
    ("huge_claim", "archive.header", lambda d: d[:124] + b"77777777777\0" + d[136:]),
    ("first_member_missing", "archive.header", lambda d: d[after_lock(d) :]),
):
    add(f"archive_{name}", code, with_bytes(change))


def other_tar(build: Callable[[tarfile.TarFile], None], form: int = tarfile.USTAR_FORMAT) -> Attack:
    def make(folder: Path) -> list[str]:
        path = folder / f"{NAME}-1.0.0.v3b"
        with tarfile.open(path, "w", format=form) as archive:
            build(archive)
        return ["verify", str(path), "--level", "integrity"]

    return make


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def build(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info, io.BytesIO())

    return build


for name, build in (
    ("parent", member("../../canary")),
    ("absolute", member("/canary")),
    ("link", member("vol3d.lock.json", tarfile.SYMTYPE, "/etc/passwd")),
    ("hard_link", member("vol3d.lock.json", tarfile.LNKTYPE, "/etc/passwd")),
    ("device", member("vol3d.lock.json", tarfile.CHRTYPE)),
    ("fifo", member("vol3d.lock.json", tarfile.FIFOTYPE)),
):
    add(f"archive_{name}", "archive.header", other_tar(build))


@attack("archive.header")
def archive_zip(folder: Path) -> list[str]:
    path = folder / f"{NAME}-1.0.0.v3b"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../canary", "x")
    return ["verify", str(path), "--level", "integrity"]


def with_lock(change: Callable[[dict[str, Any]], object]) -> Attack:
    def make(folder: Path) -> list[str]:
        path = packed(folder)
        content = json.loads(read_head(path).lock_bytes)
        change(content)
        return _with_lock_bytes(path, spell_lock(content))

    return make


def spell_lock(content: dict[str, Any]) -> bytes:
    """Write a lock as vol3d does, with a checksum that fits."""

    def spell(value: dict[str, Any]) -> bytes:
        return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode()

    content = {key: value for key, value in content.items() if key != "checksum"}
    return spell(content | {"checksum": hashlib.sha256(spell(content)).hexdigest()})


def _with_lock_bytes(path: Path, lock_bytes: bytes) -> list[str]:
    data = path.read_bytes()
    info = tarfile.TarInfo("vol3d.lock.json")
    info.size, info.mode = len(lock_bytes), 0o644
    head = info.tobuf(tarfile.USTAR_FORMAT) + lock_bytes + bytes(-len(lock_bytes) % 512)
    path.write_bytes(head + data[after_lock(data) :])
    return ["verify", str(path), "--level", "integrity"]


for name, code, edit in (
    ("path_parent", "lock.kind", lambda c: c["files"][0].update(path="../canary")),
    ("path_absolute", "lock.kind", lambda c: c["files"][0].update(path="/etc/passwd")),
    ("path_hidden", "lock.kind", lambda c: c["files"][0].update(path="docs/.bashrc")),
    ("path_of_lock", "lock.kind", lambda c: c["files"][0].update(path="vol3d.lock.json")),
    ("path_long", "path.name", lambda c: c["files"][-1].update(path=f"docs/{'x' * 200}.md", kind="doc")),
    ("kind", "lock.kind", lambda c: c["files"][0].update(kind="script")),
    ("size_negative", "lock.file-size", lambda c: c["files"][0].update(size=-1)),
    ("size_bool", "lock.file-size", lambda c: c["files"][0].update(size=True)),
    ("size_huge", "lock.file-size", lambda c: c["files"][0].update(size=1 << 70)),
    ("digest", "lock.sha256", lambda c: c["files"][0].update(sha256="0")),
    ("order", "lock.order", lambda c: c["files"].reverse()),
    ("twice", "path.clash", lambda c: c["files"].insert(0, c["files"][0])),
    ("missing_file", "lock.missing", lambda c: c["files"].pop(0)),
    ("extra_field", "lock.fields", lambda c: c.update(run="id")),
    ("format", "lock.format", lambda c: c.update(format="vol3d-lock/9")),
    ("name", "lock.name", lambda c: c.update(name="../x")),
    ("version", "lock.version", lambda c: c.update(version="1.0.0; id")),
    ("text", "lock.text", lambda c: c.update(card=["x"])),
    ("other_digest", "file.sha256", lambda c: c["files"][0].update(sha256="0" * 64)),
):
    add(f"lock_{name}", code, with_lock(edit))


@attack("document.duplicate")
def lock_duplicate_key(folder: Path) -> list[str]:
    path = packed(folder)
    return _with_lock_bytes(path, read_head(path).lock_bytes.replace(b"{", b'{"name": "x",', 1))


@attack("lock.canonical")
def lock_other_spelling(folder: Path) -> list[str]:
    path = packed(folder)
    return _with_lock_bytes(path, read_head(path).lock_bytes.replace(b": ", b":  ", 1))
