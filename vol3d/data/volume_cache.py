"""The case cache: deterministic preprocessing is computed once per content and parameters, and is never stale.

The *key* of a case is the SHA-256 of its files' content, of the canonical form of every deterministic transform, and
of the versions of the libraries that read and compute. Whatever changes the result changes the key; entries are never
invalidated, only evicted. *Tiers*, from fast to large: device (if asked for), RAM, disk, each with its own budget
of bytes and least-recently-used eviction. Every tier holds cases in compact, exact form; ``get`` gives new memory.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from vol3d.data.byte_size import parse_bytes
from vol3d.data.cache_folder import default_cache_dir
from vol3d.data.case_key import CaseKey, case_key
from vol3d.data.case_packer import pack_case
from vol3d.data.content_digest import ContentDigests
from vol3d.data.disk_tier import DiskTier
from vol3d.data.fill_record import FillRecord
from vol3d.data.item_leaves import item_leaves
from vol3d.data.memory_tier import MemoryTier
from vol3d.data.transform_fingerprint import as_compose, fingerprint_prefix, first_random_index
from vol3d.errors import ConfigError, Vol3dError, VolumeReadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vol3d.data.packed_case import PackedCase


class CacheOptions(TypedDict, total=False):
    """Options of :class:`VolumeCache`, as a config gives them.

    ``cache_dir``: folder of the disk tier (default: see ``default_cache_dir``). ``disk_bytes``, ``ram_bytes``,
    ``device_bytes``: budgets, as numbers or as texts like ``"1GiB"``; 0 leaves the tier out (defaults 32 GiB, 1 GiB,
    1 GiB). ``device``: where tensors live and come back, for example ``"cuda"``; None leaves them on the CPU.
    """

    cache_dir: str | Path | None
    disk_bytes: int | str
    ram_bytes: int | str
    device_bytes: int | str
    device: str | torch.device | None


class VolumeCache:
    """Cached results of the deterministic transforms of one transform list.

    Args:
        transform: A MONAI ``Compose``, one transform, or a list of them; what follows the first random transform
            is left to the caller.
        options: See :class:`CacheOptions`.

    Raises:
        ConfigError: If an option is unknown, or a parameter of a transform cannot be fingerprinted.
        OutputError: If the folder cannot be written.
    """

    def __init__(self, transform: Any, options: CacheOptions | None = None) -> None:
        given: dict[str, Any] = {"disk_bytes": "32GiB", "ram_bytes": "1GiB", "device_bytes": "1GiB", **(options or {})}
        unknown = sorted(set(given) - set(CacheOptions.__annotations__))
        if unknown:
            names = ", ".join(CacheOptions.__annotations__)
            raise ConfigError(f"cache option must be one of {names}, got {unknown[0]}; the budgets are bytes")
        budgets = {name: parse_bytes(given[name], name) for name in ("disk_bytes", "ram_bytes", "device_bytes")}
        self.compose = as_compose(transform)
        self.num_deterministic = first_random_index(self.compose)
        self.fingerprint = fingerprint_prefix(self.compose)
        self.memory_tiers = [MemoryTier(budgets["ram_bytes"], torch.device("cpu"))]
        if given.get("device") is not None:
            self.memory_tiers.insert(0, MemoryTier(budgets["device_bytes"], torch.device(given["device"])))
        folder = Path(given.get("cache_dir") or default_cache_dir()).expanduser()
        self.disk = DiskTier(folder, budgets["disk_bytes"]) if budgets["disk_bytes"] else None
        self._read_once: set[str] = set()
        self._digests = ContentDigests(folder / "digests" if self.disk else None)

    def key(self, item: Any) -> CaseKey:
        """Return the key of an input item, from the content that its files have now."""
        return case_key(item, self.fingerprint, self._digests)

    def get(self, item: Any) -> Any:
        """Return the result of the deterministic transforms, in new memory.

        Args:
            item: What the first transform takes: a path, or a dictionary of paths and plain values.

        Raises:
            VolumeReadError: If a file cannot be read or a transform fails; the message names the files.
            DataError: If the result holds something that cannot be cached.
        """
        if self.num_deterministic == 0:
            return item
        key = self.key(item)
        return self._packed(key, item).unpack(item)

    def stored_bytes(self, item: Any) -> int | None:
        """Return the bytes of a case in the disk tier, or None if it is not there."""
        return self.disk.size(self.key(item).digest) if self.disk else None

    def fill(self, item: Any) -> tuple[int, int | None]:
        """Make sure that a case is cached, without unpacking it.

        Returns:
            Its bytes in the cache, and the bytes of its arrays if it had to be computed.
        """
        size = self.stored_bytes(item)
        if size is not None:
            return size, None
        case = self._packed(self.key(item), item)
        return self.stored_bytes(item) or case.num_bytes, case.num_unpacked_bytes

    def fill_record(self, items: Sequence[Any]) -> FillRecord | None:
        """Return what is remembered of these items, or None where nothing can be."""
        if self.disk is None:
            return None
        try:
            return FillRecord(self.disk.folder, self.fingerprint.digest, items)
        except OSError:  # filling names the file
            return None

    def apply_random(self, case: Any) -> Any:
        """Return a case after the first random transform and all that follow."""
        return self.compose(case, start=self.num_deterministic)

    def _packed(self, key: CaseKey, item: Any) -> PackedCase:
        for index, tier in enumerate(self.memory_tiers):
            case = tier.get(key.digest)
            if case is not None and case.belongs_to in (None, key.paths_digest):
                return self._keep(key, case, self.memory_tiers[:index])
        case = self._read(key)
        if case is None:
            with self.disk.lock(key.digest) if self.disk else contextlib.nullcontext():
                # Another process may have computed it while this one waited.
                case = self._read(key) or self._compute(key, item)
        elif key.digest not in self._read_once:
            # The page cache holds it now; a copy in RAM pays only for what is asked for again.
            self._read_once.add(key.digest)
            return self._keep(key, case, self.memory_tiers[:-1])
        return self._keep(key, case, self.memory_tiers)

    def _keep(self, key: CaseKey, case: PackedCase, tiers: list[MemoryTier]) -> PackedCase:
        for tier in reversed(tiers):
            case = tier.put(key.digest, case)
        return case

    def _read(self, key: CaseKey) -> PackedCase | None:
        case = self.disk.read(key.digest) if self.disk else None
        return case if case is not None and case.belongs_to in (None, key.paths_digest) else None

    def _compute(self, key: CaseKey, item: Any) -> PackedCase:
        try:
            result = self.compose(item, end=self.num_deterministic, threading=True)
        except Exception as error:  # a reader or transform may raise anything; what it raised is chained
            raise _failed_case(item, error) from error
        if self.key(item) != key:
            raise _failed_case(item, OSError("the files changed while they were read"))
        case = pack_case(result, item, key)
        if self.disk is not None:
            record = {"fingerprint": self.fingerprint.as_dict(), "created": time.time(), **key.as_dict()}
            self.disk.write(key.digest, case, record)
        return case


def _failed_case(item: Any, error: Exception) -> Vol3dError:
    while error.__cause__ is not None and not isinstance(error, Vol3dError):
        error = error.__cause__  # type: ignore[assignment]
    files = ", ".join(str(leaf) for _, leaf in item_leaves(item) if isinstance(leaf, (str, Path)))
    reason = " ".join(str(error).split())
    return VolumeReadError(
        f"case must pass the deterministic transforms, got {type(error).__name__}: {reason} for {files}; "
        "repair the file or leave the case out"
    )
