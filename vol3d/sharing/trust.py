"""The trust file of one site: whose signature counts, for which bundles, until when; and what a person approved.

``trust.json`` in the folder of :func:`share_home`. It is the root of all decisions here, so a file that others may
write is refused. Example::

    {"approvals": {"<lock id>": {"by": "m.curie", "on": "2026-11-22", "title": "lobes_ct_segmentation@1.0.0"}},
     "format": "vol3d-trust/1",
     "signers": {"hospital-a": {"bundles": ["*_ct_*"], "expires": "2027-11-22", "kind": "key", "pem": "-----BEGIN ...",
                                "scripts": false, "subject": ""}}}
"""

from __future__ import annotations

import datetime
import fnmatch
import getpass
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vol3d.data.atomic_write import atomic_path
from vol3d.sharing.lock import SHA256
from vol3d.sharing.refusal import refused, shorten
from vol3d.sharing.strict_documents import parse_json

if TYPE_CHECKING:
    from vol3d.sharing.lock import Lock

FORMAT = "vol3d-trust/1"
MAX_TRUST_BYTES = 1024 * 1024
_SIGNER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PATTERN = re.compile(r"[a-z0-9_*?]{1,64}")


def share_home() -> Path:
    """Return the folder of the trust file, credentials and store: ``$VOL3D_HOME``, else ``~/.vol3d``."""
    given = os.environ.get("VOL3D_HOME")
    return Path(given) if given else Path.home() / ".vol3d"


@dataclass(frozen=True)
class Signer:
    """One signer this site trusts.

    Args:
        kind: ``key`` (``pem`` is a P-256 public key) or ``ca`` (``pem`` is the certificate of a private CA).
        pem: PEM text.
        subject: For a CA: the common name that the signing certificate must have.
        bundles: Patterns of bundle names, for example ``*_ct_*``.
        scripts: May its bundles bring their own code?
        expires: Last day, ``YYYY-MM-DD``.
    """

    kind: str
    pem: str
    subject: str
    bundles: tuple[str, ...]
    scripts: bool
    expires: str

    def covers(self, bundle_name: str) -> bool:
        """Tell whether the signer may sign a bundle of this name."""
        return any(fnmatch.fnmatchcase(bundle_name, pattern) for pattern in self.bundles)

    def is_expired(self, today: datetime.date) -> bool:
        """Tell whether the last day has passed."""
        return today > datetime.date.fromisoformat(self.expires)


@dataclass
class Trust:
    """The content of a trust file.

    Args:
        signers: By local name.
        approvals: Lock id to who approved it, when, and its title.
    """

    signers: dict[str, Signer] = field(default_factory=dict)
    approvals: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, name: str, signer: Signer) -> None:
        """Add a signer.

        Raises:
            RefusedError: If the name is taken or a field is not what it must be.
        """
        if name in self.signers:
            raise refused("trust.name", f"signer must have a new name, got {shorten(name)}; remove the old one first")
        _check_signer(name, asdict(signer) | {"bundles": list(signer.bundles)})
        if any((s.pem, s.subject) == (signer.pem, signer.subject) for s in self.signers.values()):
            raise refused("trust.twice", f"signer must be new, got the key of another name for {name}; remove that one")
        self.signers[name] = signer

    def remove(self, name: str) -> None:
        """Remove a signer.

        Raises:
            RefusedError: If there is none of that name.
        """
        if self.signers.pop(name, None) is None:
            raise refused("trust.name", f"signer must exist, got {shorten(name)}; see `vol3d share trust list`")

    def approve(self, lock: Lock, lock_id: str) -> None:
        """Record that a person here has read the own code of a bundle.

        Args:
            lock: Lock of the bundle.
            lock_id: The lock id as the person gave it, all 64 digits.

        Raises:
            RefusedError: If it is the lock id of another bundle.
        """
        if lock_id != lock.id:
            raise refused(
                "approve.lock", f"lock id must be the one of {lock.title}, got another; read what you approve"
            )
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        self.approvals[lock.id] = {"by": getpass.getuser(), "on": today, "title": lock.title}

    def save(self, path: Path) -> None:
        """Write the trust file, readable by its owner only; it appears whole or not at all."""
        content = {
            "format": FORMAT,
            "signers": {name: asdict(signer) for name, signer in self.signers.items()},
            "approvals": self.approvals,
        }
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_path(path) as aside:
            aside.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            aside.chmod(0o600)


def load_trust(path: Path) -> Trust:
    """Return the trust file's content; a missing file trusts nobody.

    Raises:
        RefusedError: If others may write the file, or it is not a valid trust file.
    """
    if not path.exists():
        return Trust()
    for place in (path.parent, path):
        require_private(place, "trust.mode", stat.S_IWGRP | stat.S_IWOTH)
    raw = parse_json(path.read_bytes()[: MAX_TRUST_BYTES + 1], "trust file")
    if not isinstance(raw, dict) or set(raw) != {"format", "signers", "approvals"} or raw["format"] != FORMAT:
        raise refused("trust.format", f"trust file must be a {FORMAT}, got another; restore it from a backup")
    if not isinstance(raw["signers"], dict) or not isinstance(raw["approvals"], dict):
        raise refused("trust.format", "signers and approvals must be mappings, got others; restore it from a backup")
    signers = {name: _check_signer(name, entry) for name, entry in raw["signers"].items()}
    for lock_id, entry in raw["approvals"].items():
        if not SHA256.fullmatch(lock_id) or not isinstance(entry, dict):
            raise refused("trust.approval", f"approvals must name lock ids, got {shorten(lock_id)}; remove it")
    return Trust(signers, raw["approvals"])


def require_private(path: Path, code: str, forbidden_mode: int) -> None:
    """Refuse a file or folder that the wrong people may change or read.

    Raises:
        RefusedError: If it belongs to another account, or has one of the forbidden permission bits.
    """
    status = path.stat()
    if hasattr(os, "geteuid") and status.st_uid not in (os.geteuid(), 0):
        raise refused(code, f"{path.name} must belong to this account, got owner {status.st_uid}; restore it")
    if os.name == "posix" and status.st_mode & forbidden_mode:
        mode = oct(stat.S_IMODE(status.st_mode))
        raise refused(code, f"{path.name} must be closed to other accounts, got mode {mode}; run chmod go-rwx on it")


def _check_signer(name: str, entry: Any) -> Signer:
    fields = set(Signer.__dataclass_fields__)
    if not _SIGNER_NAME.fullmatch(name) or not isinstance(entry, dict) or set(entry) != fields:
        raise refused("trust.signer", f"signer must have a plain name and its fields, got {shorten(name)}; add it anew")
    texts = all(isinstance(entry[key], str) for key in ("kind", "pem", "subject", "expires"))
    if not texts or entry["kind"] not in ("key", "ca") or type(entry["scripts"]) is not bool:
        raise refused("trust.signer", f"signer {name} must be a key or a ca with plain fields, got others; add it anew")
    if (entry["kind"] == "ca") != bool(entry["subject"]):
        raise refused("trust.subject", f"signer {name} must have a subject exactly if it is a CA; give --subject NAME")
    patterns = entry["bundles"]
    if not isinstance(patterns, list) or not patterns or not all(_is_pattern(p) for p in patterns):
        raise refused("trust.bundles", f"bundles of {name} must be name patterns, got {shorten(patterns)}; give some")
    try:
        datetime.date.fromisoformat(entry["expires"])
    except ValueError:
        got = shorten(entry["expires"])
        raise refused("trust.expires", f"expires of {name} must be a day YYYY-MM-DD, got {got}; add it anew") from None
    return Signer(**(entry | {"bundles": tuple(patterns)}))


def _is_pattern(pattern: Any) -> bool:
    return isinstance(pattern, str) and _PATTERN.fullmatch(pattern) is not None
