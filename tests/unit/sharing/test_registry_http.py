"""HTTP with a registry: credentials go to it alone, and its answers are held to their size."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from sharing_bundles import NAME

from vol3d.errors import IncompleteError, RefusedError
from vol3d.sharing.archive import Head, read_head
from vol3d.sharing.credentials import Credentials, find_credentials
from vol3d.sharing.oci_remote import OciRemote
from vol3d.sharing.registry_http import MAX_ANSWER_BYTES, RegistryHttp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "abc"  # noqa: S105 - of a server in this process
BASIC = "Basic " + base64.b64encode(b"ada:secret").decode()


class Server:
    """A loopback HTTP server whose answers a test sets: path to status, headers and body."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                server.requests.append((path, self.headers.get("Authorization")))
                status, headers, body = server.answers.get(path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"127.0.0.1:{self.http.server_port}"
        self.base = f"http://{self.address}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def other_server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


ADA = Credentials("ada", "secret")


def test_basic_credentials_are_sent(server: Server) -> None:
    server.answers["/v2/"] = (200, {}, b"ok")
    assert RegistryHttp(server.base, ADA).read("GET", "/v2/") == b"ok"
    assert server.requests == [("/v2/", BASIC)]


def test_token_is_fetched_when_the_registry_asks_for_one(server: Server, other_server: Server) -> None:
    challenge = f'Bearer realm="{other_server.base}/token",service="registry",scope="repository:a:pull"'
    server.answers["/v2/"] = (401, {"WWW-Authenticate": challenge}, b"")
    other_server.answers["/token"] = (200, {}, json.dumps({"token": "abc"}).encode())
    with pytest.raises(RefusedError, match=r"oci\.denied"):
        RegistryHttp(server.base, ADA).read("GET", "/v2/")
    assert other_server.requests == [("/token", BASIC)]
    assert server.requests == [("/v2/", BASIC), ("/v2/", "Bearer abc")]


def test_given_token_is_sent(server: Server) -> None:
    server.answers["/v2/"] = (200, {}, b"ok")
    RegistryHttp(server.base, Credentials(token=TOKEN)).read("GET", "/v2/")
    assert server.requests == [("/v2/", "Bearer abc")]


def test_credentials_do_not_follow_a_redirect(server: Server, other_server: Server) -> None:
    server.answers["/blob"] = (307, {"Location": f"{other_server.base}/elsewhere"}, b"")
    other_server.answers["/elsewhere"] = (200, {}, b"content")
    assert RegistryHttp(server.base, ADA).read("GET", "/blob") == b"content"
    assert other_server.requests == [("/elsewhere", None)]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirect_to_another_protocol_is_refused(server: Server, target: str) -> None:
    server.answers["/blob"] = (307, {"Location": target}, b"")
    with pytest.raises(RefusedError, match=r"oci\.(redirect|status)"):
        RegistryHttp(server.base, ADA).read("GET", "/blob")


def test_upload_to_another_host_is_refused(server: Server, other_server: Server) -> None:
    with pytest.raises(RefusedError, match=r"oci\.host"):
        RegistryHttp(server.base, ADA).read("PUT", f"{other_server.base}/steal", body=b"x")


def test_credentials_are_not_sent_over_plain_http() -> None:
    with pytest.raises(RefusedError, match=r"oci\.plain"):
        RegistryHttp("http://registry.example", ADA)
    RegistryHttp("http://registry.example", Credentials())


def test_answer_without_end_is_refused(server: Server) -> None:
    server.answers["/v2/"] = (200, {}, bytes(MAX_ANSWER_BYTES + 1))
    with pytest.raises(RefusedError, match=r"oci\.size"):
        RegistryHttp(server.base, ADA).read("GET", "/v2/")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_registry_that_is_busy_can_be_asked_again(server: Server, status: int) -> None:
    server.answers["/v2/"] = (status, {}, b"")
    with pytest.raises(IncompleteError, match=rf"oci\.busy.*{status}"):
        RegistryHttp(server.base, ADA).read("GET", "/v2/")


def _blob(server: Server, archive: Path, status: int, headers: dict[str, str], body: bytes) -> tuple[OciRemote, Head]:
    head = read_head(archive)
    server.answers[f"/v2/{NAME}/blobs/sha256:{head.lock.files[0].sha256}"] = (status, headers, body)
    return OciRemote(f"oci+http://{server.address}", Credentials()), head


def test_registry_that_ignores_range_is_read_from_the_right_byte(server: Server, light_archive: Path) -> None:
    remote, head = _blob(server, light_archive, 200, {}, b"Apache-2.0\n")
    assert b"".join(remote.read(head, head.lock.files[0], 4)) == b"he-2.0\n"


def test_connection_that_ends_early_gives_what_came(server: Server, light_archive: Path) -> None:
    remote, head = _blob(server, light_archive, 200, {"Content-Length": "11"}, b"Apa")
    server.http.daemon_threads = True
    assert b"".join(remote.read(head, head.lock.files[0], 0)) == b"Apa"


def test_credentials_come_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text('{"registry.example:5000": {"username": "ada", "password": "secret"}}')
    path.chmod(0o600)
    assert find_credentials("registry.example:5000", tmp_path).basic() == BASIC
    assert find_credentials("other.example", tmp_path).basic() is None
    path.chmod(0o640)
    with pytest.raises(RefusedError, match=r"credentials\.mode"):
        find_credentials("registry.example:5000", tmp_path)


def test_credentials_come_from_the_environment_for_one_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOL3D_REGISTRY_HOST", "registry.example")
    monkeypatch.setenv("VOL3D_REGISTRY_TOKEN", TOKEN)
    assert find_credentials("registry.example", tmp_path).token == TOKEN
    assert find_credentials("other.example", tmp_path).token != TOKEN


def test_credentials_show_nothing_of_themselves() -> None:
    assert "secret" not in repr(ADA)
    assert "ada" not in repr(ADA)
