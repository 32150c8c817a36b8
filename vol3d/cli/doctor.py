"""``vol3d doctor``: versions, devices and missing extras, each with its fix."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from vol3d.cli.console import out
from vol3d.errors import RequirementError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_DEVELOPER_EXTRA = "test"


def doctor() -> None:
    """Check this installation: versions, devices, missing extras; exit code 5 where something needed is missing."""
    table = Table("what", "found", "remedy")
    table.add_row("python", platform.python_version(), "")
    table.add_row("vol3d", importlib.metadata.version("vol3d"), "")
    unmet = [requirement.name for requirement in requirements() if not _add_package(table, requirement)]
    for extra in importlib.metadata.metadata("vol3d").get_all("Provides-Extra", []):
        if extra != _DEVELOPER_EXTRA:
            _add_extra(table, extra)
    if "torch" not in unmet:
        _add_devices(table)
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    table.add_row("free disk here", f"{free_gib:.1f} GiB", "" if free_gib > 1 else "free some space before a run")
    out.print(table)
    if unmet:
        raise RequirementError(
            f"packages must be installed as vol3d requires, got other or no versions of {', '.join(unmet)}; "
            "run `pip install vol3d`"
        )


def requirements(extra: str | None = None) -> list[Requirement]:
    """Return what the installed vol3d requires on this platform: always, or by one of its extras only."""
    from packaging.requirements import Requirement

    declared = [Requirement(text) for text in importlib.metadata.requires("vol3d") or []]
    always = [r for r in declared if r.marker is None or r.marker.evaluate({"extra": ""})]
    if extra is None:
        return always
    return [r for r in declared if r not in always and r.marker is not None and r.marker.evaluate({"extra": extra})]


def _found(requirement: Requirement) -> tuple[str | None, bool]:
    """Return the installed version of a package, and whether it will do."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return None, False
    return version, requirement.specifier.contains(version, prereleases=True)


def _add_package(table: Table, requirement: Requirement) -> bool:
    version, is_right = _found(requirement)
    remedy = "" if is_right else f"pip install '{requirement.name}{requirement.specifier}'"
    table.add_row(requirement.name, version or "missing", remedy)
    return is_right


def _add_extra(table: Table, extra: str) -> None:
    absent = [requirement.name for requirement in requirements(extra) if not _found(requirement)[1]]
    found = "yes" if not absent else f"no {', '.join(absent)}"
    table.add_row(f"extra {extra}", found, "" if not absent else f"pip install 'vol3d[{extra}]'")


def _add_devices(table: Table) -> None:
    import torch

    from vol3d.engines.autocast_inferer import has_fast_bfloat16
    from vol3d.engines.compiled_network import cpp_compiler

    table.add_row("cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads", "")
    is_fast, is_fast_compiled = has_fast_bfloat16("cpu"), has_fast_bfloat16("cpu", compiled=True)
    found = "fast" if is_fast else "fast in compiled networks" if is_fast_compiled else "slow"
    table.add_row("cpu bfloat16", found, "")
    compiler = shutil.which(cpp_compiler())
    remedy = "" if compiler else f"install {cpp_compiler()}, or train with --set compile=false"
    table.add_row("compiler for training on cpu", compiler or "none", remedy)
    if not torch.cuda.is_available():
        table.add_row("cuda", "none", "needs an NVIDIA GPU and a CUDA build of torch")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        table.add_row(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB", "")
