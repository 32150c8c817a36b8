"""Which code a class or function runs: a released version, or a digest of its source.

Installed packages are named by their version. Code that is being worked on (vol3d itself, a user's own modules) has
no version that changes with every edit, so it is named by the SHA-256 of its module and of every other such module
that it imports, directly or through others.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

from vol3d.errors import ConfigError


@functools.cache
def code_version(module: str) -> str:
    """Return what stands for the code of a module.

    Args:
        module: Dotted name, for example ``monai.transforms.spatial.dictionary``.

    Returns:
        For example ``monai 1.6.1``, ``python 3.11.7`` or ``source 3f0c...``.

    Raises:
        ConfigError: If the module is neither installed nor a source file.
    """
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names and package != "__main__":
        return f"python {platform.python_version()}"
    path = own_source(module)
    if path is None:
        return f"{package} {_installed_version(package)}"
    digest = hashlib.sha256()
    for name, source in sorted(_reachable(module, path).items()):
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return f"source {digest.hexdigest()}"


def own_source(module: str) -> Path | None:
    """Return the file of a module that belongs to no installed package but vol3d, or None; nothing is imported."""
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None) if loaded is not None else _find_file(module)
    if origin is None or not origin.endswith(".py"):
        return None
    path = Path(origin).resolve()
    # By name, not by prefix: environments are nested, and users have folders of their own for packages.
    is_installed = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    return None if is_installed and module.partition(".")[0] != "vol3d" else path


def _find_file(module: str) -> str | None:
    package, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or not parts:
        return None if spec is None else spec.origin
    for folder in spec.submodule_search_locations or ():
        for file in (Path(folder, *parts).with_suffix(".py"), Path(folder, *parts, "__init__.py")):
            if file.is_file():
                return str(file)
    return None


def _installed_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Slow: it reads the file list of every installed package. Needed where names differ (PIL is in pillow).
        distributions = importlib.metadata.packages_distributions().get(package, [])
    if not distributions:
        raise ConfigError(
            f"module must be an installed package or a source file, got {package!r}; "
            "define the transform in a .py file, or put it after the first random transform"
        )
    return importlib.metadata.version(distributions[0])


def _reachable(module: str, path: Path) -> dict[str, bytes]:
    """Return the source of a module and of the own modules that it imports, by name."""
    sources: dict[str, bytes] = {}
    waiting = [(module, path)]
    while waiting:
        name, file = waiting.pop()
        if name not in sources:
            sources[name] = file.read_bytes()
            is_package = file.name == "__init__.py"
            imported = _imported_modules(sources[name], name if is_package else name.rpartition(".")[0])
            waiting += [(found, source) for found in imported if (source := own_source(found)) is not None]
    return sources


def _imported_modules(source: bytes, package: str) -> set[str]:
    """Return every name that could be an imported module; ``from a import b`` may mean module ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            stem = ".".join([*parent, *([node.module] if node.module else [])])
            names |= {stem, *(f"{stem}.{alias.name}" for alias in node.names)}
    return {name for name in names if name and name.partition(".")[0] not in sys.stdlib_module_names}
