"""What was run, on what, with what: the content of ``report.json``."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import vol3d

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vol3d.inference.case_result import CaseResult

NOTICE = "Research software, not a medical device; not for diagnosis."
_PACKAGES = ("monai", "torch", "numpy", "nibabel", "simpleitk", "pydicom")


@dataclass(frozen=True)
class RunIdentity:
    """What decides the result of a run, besides the input.

    Args:
        bundle_name: Name of the bundle.
        bundle_version: ``version`` of its metadata.
        bundle_digest: SHA-256 over its configs and weights.
        weights_sha256: SHA-256 of the weights that were loaded; others than the bundle's own where a setting says so.
        settings: Config overrides of this run.
        device: Device that computes.
        seed: Seed of the bundle's config.
    """

    bundle_name: str
    bundle_version: str
    bundle_digest: str
    weights_sha256: str
    settings: Mapping[str, Any]
    device: str
    seed: int

    def fingerprint(self, input_sha256: str, series_uid: str | None) -> str:
        """Return a SHA-256 that changes when the result could: with the input, the bundle, settings or versions."""
        decisive = [
            self.bundle_digest,
            self.weights_sha256,
            dict(self.settings),
            self.device,
            input_sha256,
            series_uid,
            software_versions(),
        ]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()


def software_versions() -> dict[str, str]:
    """Return the versions of vol3d, Python and the packages that compute or read."""
    return {
        "vol3d": vol3d.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def peak_memory_bytes(device: str) -> dict[str, int]:
    """Return the process's peak resident memory so far and, on a CUDA device, its peak allocation."""
    import resource  # noqa: PLC0415 - absent on Windows, where only this figure is lost

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.startswith("cuda"):
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


def run_report(
    case: str, identity: RunIdentity, result: CaseResult, files: Mapping[str, str], fingerprint: str
) -> dict[str, Any]:
    """Return the report of one case as plain JSON values.

    Args:
        case: Name of the case.
        identity: What was run.
        result: What came out.
        files: SHA-256 of the input (key ``input``) and of each written file by its name.
        fingerprint: Of this run; a later run with the same one is skipped.
    """
    return {
        "notice": NOTICE,
        "case": case,
        "bundle": {
            "name": identity.bundle_name,
            "version": identity.bundle_version,
            "sha256": identity.bundle_digest,
            "weights_sha256": identity.weights_sha256,
            "settings": dict(identity.settings),
        },
        "device": identity.device,
        "seed": identity.seed,
        "versions": software_versions(),
        "geometry": result.geometry.as_dict(),
        "summary": result.summary(),
        **result.findings(),
        "seconds": result.seconds,
        "peak_memory_bytes": peak_memory_bytes(identity.device),
        "sha256": dict(files),
        "fingerprint": fingerprint,
    }
