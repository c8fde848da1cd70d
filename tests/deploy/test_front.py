"""deploy/nginx.conf in front of stand-ins: who is let in, what of their credentials is passed on, what is forged."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from benchmarks.workplace import until
from tests.services.command_line import ROOT
from tests.services.deployment import Deployment

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
UPSTREAMS = {"api:3001": "api", "webserver:3000": "webserver"}
GRAPHQL = "/dagster/graphql"
REPORTS = tuple(f"/dagster/report_asset_{kind}/x" for kind in ("materialization", "check", "observation"))
OTHER_PAGES = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://evil"},
    {"Origin": "null"},
)
pytestmark = pytest.mark.skipif(NGINX is None, reason="not installed: nginx")


@dataclass
class Front:
    """A front, and the login that opens it."""

    url: str
    login: tuple[str, str]
    folder: Path

    def own_pages(self) -> tuple[dict[str, str], ...]:
        """Return what browsers send along for pages of this site, and other programs for none."""
        return {}, {"Origin": self.url}, {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    login = Deployment(folder).login
    [kept] = [line for line in (folder / ".env").read_text().splitlines() if line.startswith("LOGIN=")]
    (folder / "login").write_text(kept.removeprefix("LOGIN="))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        place = f"127.0.0.1:{probe.getsockname()[1]}"
    servers = {address: stand_in(name) for address, name in UPSTREAMS.items()}
    changes = {"listen 8080": f"listen {place}", "/tmp/": "", "access_log /dev/stdout": f"access_log {folder}/lines"}
    changes |= {f"http://{address}": f"http://127.0.0.1:{server.server_port}" for address, server in servers.items()}
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for there, here in changes.items():
        assert there in text
        text = text.replace(there, here)
    (folder / "nginx.conf").write_text(text)
    # What root starts would become somebody who may not read the folder.
    options = ["-p", folder, "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off; user root;"]
    assert NGINX is not None
    with (folder / "log").open("wb") as log, subprocess.Popen([NGINX, *options], stdout=log, stderr=log) as process:
        try:
            until(lambda: process.poll() is not None or answers(place), "nginx")
            assert process.poll() is None, (folder / "log").read_text()
            yield Front(f"http://{place}", login, folder)
        finally:
            process.terminate()
            for server in servers.values():
                server.shutdown()
                server.server_close()


def stand_in(name: str) -> ThreadingHTTPServer:
    """Start a server that says who it is and what it was sent."""

    class Told(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = json.dumps({"name": name, "authorization": self.headers["Authorization"]}).encode()
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_OPTIONS = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Told)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def answers(place: str) -> bool:
    host, port = place.split(":")
    with socket.socket() as trying:
        return trying.connect_ex((host, int(port))) == 0


@pytest.fixture
def client(front: Front) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=front.url, auth=front.login) as opened:
        yield opened


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/v1", "/v1/self", "/metrics", "/api/whoami", "/dagster", "/dagster/", GRAPHQL]
)
def test_without_credentials_nothing_is_answered(front: Front, path: str) -> None:
    wants_token = path.startswith(("/v1", "/metrics", "/api"))
    wrong = ("knockem", "knockem")
    assert httpx.get(f"{front.url}{path}").status_code == 401
    assert httpx.get(f"{front.url}{path}", auth=front.login if wants_token else wrong).status_code == 401


def test_what_is_forged_is_not_told_to_those_without_a_login(front: Front) -> None:
    for headers in OTHER_PAGES:
        assert httpx.post(f"{front.url}{REPORTS[0]}", headers=headers).status_code == 401


def test_tokens_are_passed_on_and_passwords_are_not(front: Front, client: httpx.Client) -> None:
    for path, name in {"/": "api", "/dagster/": "webserver"}.items():
        assert client.get(path).json() == {"name": name, "authorization": None}
    tokens = {"/v1/self": "Bearer x", "/api/whoami": "73963672-455e-5e8d-a714-71ad52a4de27:x"}
    for path, token in tokens.items():
        answer = httpx.get(f"{front.url}{path}", headers={"Authorization": token})
        assert answer.json() == {"name": "api", "authorization": token}


@pytest.mark.parametrize("path", [GRAPHQL, *REPORTS])
def test_what_pages_of_others_send_to_dagster_is_refused(front: Front, client: httpx.Client, path: str) -> None:
    for headers in front.own_pages():
        assert client.post(path, json={"query": "{ version }"}, headers=headers).status_code == 200, headers
    for headers in OTHER_PAGES:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, path, headers=headers).status_code == 403, (method, headers)
        assert client.post(path, json={"query": "{ version }"}, headers=headers).status_code == 403, headers


def test_links_to_dagster_lead_there_but_none_to_its_graphql(front: Front, client: httpx.Client) -> None:
    for headers in (*front.own_pages(), *OTHER_PAGES):
        assert client.get("/dagster/runs", headers=headers).status_code == 200, headers
        for method in ("GET", "HEAD", "OPTIONS"):
            asked = client.request(method, GRAPHQL, params={"query": "{ version }"}, headers=headers)
            assert asked.status_code == 403, (method, headers)


def test_web_sockets_are_for_its_own_pages(front: Front, client: httpx.Client) -> None:
    asking = {"Connection": "Upgrade", "Upgrade": "websocket"}
    for headers in front.own_pages():
        assert client.get(GRAPHQL, headers={**asking, **headers}).status_code == 200, headers
    for headers in OTHER_PAGES:
        assert client.get(GRAPHQL, headers={**asking, **headers}).status_code == 403, headers


def test_tokens_and_queries_are_not_logged(front: Front, client: httpx.Client) -> None:
    token = "knockem_" + "a" * 43
    client.get("/v1/self", params={"where": "secret"}, headers={"Authorization": f"Bearer {token}"})
    client.get(f"/workflows/{token}")
    client.get(f"/workflows/%6b{token[1:]}")
    client.get("/over")
    lines = front.folder / "lines"
    until(lambda: '"GET /over"' in lines.read_text(), "the last line of the log")
    said = {json.loads(line)["message"] for line in lines.read_text().splitlines()}
    assert {"GET /v1/self", "GET (hidden)"} <= said
    logged = lines.read_text() + (front.folder / "log").read_text()
    assert not any(told in logged for told in ("secret", token[1:]))
