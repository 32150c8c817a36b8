"""From a bundle folder to ``NAME-VERSION.v3b``; the same folder gives the same bytes every time."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vol3d import __version__
from vol3d.bundle.config_layers import read_layers
from vol3d.bundle.layout import LAYERS
from vol3d.errors import OutputError
from vol3d.sharing.archive import SUFFIX, Head, open_range, verify_archive, write_archive
from vol3d.sharing.check import Checked, card_title, check_bundle, licence_name, read_metadata
from vol3d.sharing.contents import check_paths, kind_of
from vol3d.sharing.lock import Lock, LockedFile
from vol3d.sharing.policy import load_policy
from vol3d.sharing.probe import make_probe
from vol3d.sharing.refusal import refuse_findings, refused
from vol3d.sharing.signature import sign_lock
from vol3d.sharing.store import hash_file
from vol3d.sharing.weights import check_safetensors, checkpoint_to_safetensors, describe_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Packed:
    """The outcome of packing.

    Args:
        path: The packed bundle.
        lock: Its lock.
        left_out: Files of the folder that stayed behind.
    """

    path: Path
    lock: Lock
    left_out: tuple[str, ...]


def pack_bundle(
    root: Path, folder: Path, level: str = "data-only", private_terms: Iterable[str] = (), source: str = ""
) -> Packed:
    """Check a bundle folder and write it as ``NAME-VERSION.v3b``, unsigned.

    Args:
        root: The bundle folder.
        folder: Where the file goes; a version that lies there already is an error.
        level: ``data-only``, or ``scripts`` for a bundle that brings its own code.
        private_terms: See :func:`vol3d.sharing.check.check_bundle`.
        source: Where the bundle comes from, for example a revision; recorded in the lock.

    Raises:
        RefusedError: If the check has findings.
        OutputError: If the version lies there already.
    """
    checked = check_bundle(root, level, private_terms)
    refuse_findings(checked.findings)
    with tempfile.TemporaryDirectory() as staging:
        sources = _stage(root, checked, Path(staging))
        check_paths(list(sources))
        files = tuple(_locked(path, sources[path]) for path in sorted(sources))
        lock = _make_lock(root, checked, files, sources, source)
        path = folder / f"{lock.name}-{lock.version}{SUFFIX}"
        if path.exists():
            raise OutputError(f"output must be new, got {path.name} that exists; remove it or raise the version")
        write_archive(path, Head(lock, lock.to_bytes(), None), lambda file: sources[file.path].open("rb"))
    return Packed(path, lock, checked.contents.left_out)


def _stage(root: Path, checked: Checked, staging: Path) -> dict[str, Path]:
    """Return path inside the bundle to the file with its content; converted and flattened ones lie in ``staging``."""
    sources = {path: root / path for path, kind in checked.contents.files.items() if kind != "checkpoint"}
    for path, kind in checked.contents.files.items():
        if kind != "checkpoint":
            continue
        target = Path(path).with_suffix(".safetensors").as_posix()
        made = staging / target
        checkpoint_to_safetensors(root / path, made)
        if target in sources and sources[target].read_bytes() != made.read_bytes():
            raise refused("weights.differ", f"{path} must equal {target}, got other tensors; remove one of them")
        sources[target] = made
    for job, layers in LAYERS.items():
        twin = f"configs/{job}.json"
        paths = [root / "configs" / f"{layer}.yaml" for layer in layers]
        if twin not in sources and all(path.is_file() for path in paths):
            # monai.bundle.load reads configs/<job>.json, one file.
            made = staging / twin
            made.parent.mkdir(exist_ok=True)
            made.write_text(json.dumps(read_layers(paths), indent=1) + "\n", encoding="utf-8")
            sources[twin] = made
    return sources


def _locked(path: str, source: Path) -> LockedFile:
    size, digest = hash_file(source)
    return LockedFile(path, size, digest, kind_of(path) or "")


def _make_lock(
    root: Path, checked: Checked, files: tuple[LockedFile, ...], sources: Mapping[str, Path], source: str
) -> Lock:
    metadata = read_metadata(root)
    provenance = {"packed_by": f"vol3d {__version__}", "source": source[:200]}
    weights = [file.path for file in files if file.kind == "weights"]
    for path in weights:
        provenance[path] = describe_tensors(check_safetensors(sources[path], path))
    # Own code is not run here: it has not been approved, not even by its maker's own site.
    can_probe = len(weights) == 1 and checked.level != "scripts"
    probe = make_probe(root, sources[weights[0]], metadata) if can_probe else None
    return Lock(
        name=root.name,
        version=metadata["version"],
        files=files,
        environment=_environment(metadata),
        licence=licence_name(root),
        card=card_title(root),
        provenance=provenance,
        audit={"level": checked.level, "policy_sha256": load_policy().sha256},
        probe=probe,
    )


def _environment(metadata: Mapping[str, Any]) -> dict[str, str]:
    names = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    pins = {package: metadata[key] for package, key in names.items() if key in metadata}
    return {
        package: str(version) for package, version in {**pins, **metadata.get("required_packages_version", {})}.items()
    }


def sign_archive(
    path: Path,
    key: Path,
    certificate: Path | None = None,
    chain: Sequence[Path] = (),
    password: bytes | None = None,
) -> Lock:
    """Sign a packed bundle in place; a signature that it has is replaced. Returns its lock.

    Args:
        path: The packed bundle; it is verified first.
        key: See :func:`vol3d.sharing.signature.sign_lock`, as for the others.
        certificate: Certificate of the key.
        chain: Certificates up to the CA.
        password: Of the key.

    Raises:
        RefusedError: If the bundle is damaged, or the key is no P-256 key.
        RequirementError: If ``model-signing`` is not installed.
    """
    head = verify_archive(path)
    signature = sign_lock(head.lock_bytes, key, certificate, chain, password)

    def open_file(file: LockedFile) -> BinaryIO:
        return open_range(path, head, file)

    write_archive(path, Head(head.lock, head.lock_bytes, signature), open_file)
    return head.lock
