"""Credentials for registries: from the environment or ``credentials.json``; never logged, never sent elsewhere.

The file lies in the folder of :func:`vol3d.sharing.trust.share_home`, is readable by its owner only, and maps a host to
``{"username": ..., "password": ...}`` or ``{"token": ...}``. For one host ``VOL3D_REGISTRY_HOST`` with
``VOL3D_REGISTRY_USERNAME`` and ``VOL3D_REGISTRY_PASSWORD``, or with ``VOL3D_REGISTRY_TOKEN``, comes first.
"""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vol3d.sharing.refusal import refused, shorten
from vol3d.sharing.strict_documents import parse_json
from vol3d.sharing.trust import require_private

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Credentials:
    """What a registry asks for; its ``repr`` shows nothing of it.

    Args:
        username: For basic authentication and for fetching a token.
        password: Goes with it.
        token: A bearer token that was given out of band.
    """

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def basic(self) -> str | None:
        """Return the header value of basic authentication, or None without a user name."""
        if not self.username:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_credentials(host: str, home: Path) -> Credentials:
    """Return the credentials for ``host`` (with its port), empty ones if there are none.

    Raises:
        RefusedError: If others may read the file, or it is not what it must be.
    """
    if os.environ.get("VOL3D_REGISTRY_HOST") == host:
        names = ("USERNAME", "PASSWORD", "TOKEN")
        return Credentials(*(os.environ.get(f"VOL3D_REGISTRY_{name}", "") for name in names))
    path = home / "credentials.json"
    if not path.exists():
        return Credentials()
    require_private(path, "credentials.mode", stat.S_IRWXG | stat.S_IRWXO)
    raw = parse_json(path.read_bytes()[: MAX_BYTES + 1], path.name)
    entry = raw.get(host, {}) if isinstance(raw, dict) else None
    fields = set(Credentials.__dataclass_fields__)
    if not isinstance(entry, dict) or set(entry) - fields or not all(isinstance(v, str) for v in entry.values()):
        raise refused("credentials.format", f"credentials must have username, password or token, for {shorten(host)}")
    return Credentials(**entry)
