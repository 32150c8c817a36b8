"""HTTP as the OCI distribution protocol needs it, with the standard library.

Kept out: redirects to plain HTTP, credentials to another host or over plain HTTP (but for the loopback address), and
answers longer than was asked for.
"""

from __future__ import annotations

import ipaddress
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, TYPE_CHECKING, Any

from vol3d.sharing.refusal import incomplete, lacking, refused, shorten

if TYPE_CHECKING:
    from http.client import HTTPMessage, HTTPResponse

    from vol3d.sharing.credentials import Credentials

TIMEOUT_S = 30
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("https", req.type):
            raise refused("oci.redirect", f"registry must not redirect from {req.type} to {shorten(scheme)}; report it")
        # Credentials are an "unredirected" header: urllib drops them here.
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class RegistryHttp:
    """Requests to one registry.

    Args:
        base: ``https://host[:port]`` or ``http://host[:port]``.
        credentials: For this host.
    """

    def __init__(self, base: str, credentials: Credentials) -> None:
        self.base = base
        self.credentials = credentials
        self._authorization = f"Bearer {credentials.token}" if credentials.token else credentials.basic()
        self._opener = urllib.request.build_opener(_SafeRedirects)
        if self._authorization and not _may_carry_secrets(base):
            raise refused("oci.plain", "registry must use https to be given credentials, got http; use oci:// for it")

    def open(
        self, method: str, url: str, headers: dict[str, str] | None = None, body: Any = None, *, retry: bool = True
    ) -> HTTPResponse:
        """Send a request and return the open answer.

        Raises:
            FileNotFoundError: If the registry has no such thing.
            RefusedError: If the registry does not accept the request or the credentials.
            RequirementError: If the registry cannot be reached.
            IncompleteError: If the registry failed for the moment (status 5xx or 429).
        """
        target = urllib.parse.urljoin(self.base, url)
        if urllib.parse.urlsplit(target)[:2] != urllib.parse.urlsplit(self.base)[:2]:
            raise refused("oci.host", "registry must keep to its own address, got another; report it")
        request = urllib.request.Request(target, data=body, headers=headers or {}, method=method)  # noqa: S310 - see above
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            answer: HTTPResponse = self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                challenge = error.headers.get("WWW-Authenticate", "")
                if error.code == 401 and retry and challenge.lower().startswith("bearer ") and _can_send_again(body):
                    self._authorization = f"Bearer {self._fetch_token(challenge)}"
                    return self.open(method, url, headers, body, retry=False)
                raise _as_error(error, method) from None
        except (urllib.error.URLError, OSError) as error:
            reason = shorten(str(getattr(error, "reason", error)), 80)
            raise lacking("oci.reach", f"registry must be reachable at {self.base}, got {reason}; check it") from None
        return answer

    def read(self, method: str, url: str, headers: dict[str, str] | None = None, body: Any = None) -> bytes:
        """Send a request and return the whole, short answer.

        Raises:
            RefusedError: If the answer is longer than 4 MiB.
        """
        with self.open(method, url, headers, body) as answer:
            data = answer.read(MAX_ANSWER_BYTES + 1)
        if len(data) > MAX_ANSWER_BYTES:
            raise refused("oci.size", f"answer must have at most {MAX_ANSWER_BYTES} bytes, got more; report it")
        return data

    def _fetch_token(self, challenge: str) -> str:
        """Ask the token service that the registry names, as the distribution specification has it."""
        fields = dict(_CHALLENGE.findall(challenge))
        realm = fields.pop("realm", "")
        if urllib.parse.urlsplit(realm).scheme not in ("https", urllib.parse.urlsplit(self.base).scheme):
            raise refused("oci.token", "token service must use https, got another scheme; report it")
        query = urllib.parse.urlencode({k: v for k, v in fields.items() if k in ("service", "scope")})
        request = urllib.request.Request(f"{realm}?{query}")  # noqa: S310 - the scheme is checked above
        basic = self.credentials.basic()
        if basic and _may_carry_secrets(realm):
            request.add_unredirected_header("Authorization", basic)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                content = json.loads(answer.read(MAX_ANSWER_BYTES))
            token = content.get("token") or content["access_token"]
        except (urllib.error.URLError, OSError, ValueError, KeyError, AttributeError):
            raise refused("oci.token", "token service must give a token, got none; check the credentials") from None
        return str(token)


def _as_error(error: urllib.error.HTTPError, method: str) -> Exception:
    if error.code == 404 and method in ("GET", "HEAD"):
        return FileNotFoundError(error.code)
    if error.code in (401, 403):
        return refused("oci.denied", f"registry must accept the credentials, got status {error.code}; check them")
    if error.code >= 500 or error.code == 429:
        return incomplete("oci.busy", f"registry must answer, got status {error.code}; try again later")
    return refused("oci.status", f"registry must accept the request, got status {error.code}; report it")


def _can_send_again(body: Any) -> bool:
    return body is None or isinstance(body, bytes)


def _may_carry_secrets(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    return parts.scheme == "https" or is_loopback
