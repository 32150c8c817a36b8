"""The gate in front of every run: ``vol3d predict``, ``train`` and ``evaluate`` ask here first.

A bundle of the store is verified against its lock and level before anything of it is parsed. A bundle in the user's own
working tree is the user's own code: it runs as it is, and what the audit says is returned as warnings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vol3d.errors import RefusedError
from vol3d.sharing.audit import audit_bundle
from vol3d.sharing.confine import confine
from vol3d.sharing.refusal import Finding, refused
from vol3d.sharing.store import Store
from vol3d.sharing.trust import load_trust, share_home
from vol3d.sharing.verify import check_level, read_folder_head, verify_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class AdmittedBundle:
    """A bundle that may be run now.

    Args:
        path: Its folder, links resolved.
        is_stored: Does it lie in the store?
        level: Level that was verified, or ``own`` for a bundle of the user's working tree.
        lock_id: Lock id of a stored bundle, for the run record.
        signer: Who signed it.
        must_confine: Call :meth:`confine` before the bundle is parsed.
        findings: What the audit says about a bundle of the working tree; warnings, not refusals.
    """

    path: Path
    is_stored: bool
    level: str
    lock_id: str | None = None
    signer: str | None = None
    must_confine: bool = False
    findings: tuple[Finding, ...] = ()

    def confine(self, read: Iterable[Path], write: Iterable[Path]) -> None:
        """Give up all rights that the run does not need; does nothing for a bundle without own code.

        Args:
            read: The inputs of the run.
            write: The output folders of the run; they have to exist.

        Raises:
            RequirementError: If the kernel has no Landlock, or torch was imported already.
        """
        if self.must_confine:
            confine([self.path, *read], write)


def find_installed(title: str, home: Path | None = None) -> Path | None:
    """Return the folder of an installed ``NAME`` or ``NAME@VERSION``, or None if there is no such bundle.

    Args:
        title: Any text a user may give for a bundle.
        home: Folder of trust file and store; default :func:`vol3d.sharing.trust.share_home`.
    """
    try:
        return Store(home or share_home()).find(title)
    except RefusedError:
        return None


def admit_bundle(
    path: Path, level: str = "data-only", *, unconfined: bool = False, home: Path | None = None
) -> AdmittedBundle:
    """Decide whether a bundle may be run; imports neither torch nor MONAI.

    Args:
        path: Bundle folder, in the store or anywhere else.
        level: Level that a stored bundle has to reach: ``data-only`` or ``scripts``.
        unconfined: Run a bundle with own code although the kernel cannot confine it.
        home: Folder of trust file and store; default :func:`vol3d.sharing.trust.share_home`.

    Raises:
        RefusedError: If a stored bundle is not what its lock says, or does not reach the level.
    """
    home = home or share_home()
    store = Store(home)
    check_level(level)
    path = path.resolve()
    if not store.holds(path):
        return AdmittedBundle(path, is_stored=False, level="own", findings=tuple(audit_bundle(path)))
    if level not in ("data-only", "scripts"):
        raise refused("admit.level", f"level of a run must be data-only or scripts, got {level}; choose one of them")
    lock = read_folder_head(path).lock
    if path != store.folder(lock.name, lock.version).resolve():
        raise refused("admit.place", f"{path.parent.name} must hold its own bundle, got {lock.title}; pull it again")
    if store.seen().get(lock.name, {}).get(lock.version) != lock.id:
        raise refused("admit.lock", f"{lock.title} must be the bundle that was pulled, got another; pull it again")
    verified = verify_folder(path, level, load_trust(home / "trust.json"), store.derived(path))
    # Also without a script: at this level nobody audits what the configs name.
    must_confine = level == "scripts" and not unconfined
    return AdmittedBundle(path, True, level, lock.id, verified.signer, must_confine)
