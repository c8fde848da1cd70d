"""A real API server on loopback for tests, over a record of its own and a real queue, with tokens to call it by."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import uvicorn

from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.accounts.users import add_user
from knockem_dagster.api.http.app import build_app
from knockem_dagster.platform import Platform
from knockem_dagster.records.accounts import Scope
from knockem_dagster.settings import Settings

ALICE, BOB, ADMINISTRATOR = "alice@example.org", "bob@example.org", "root@example.org"


@dataclass
class ApiServer:
    """A server that answers at `url`, and the platform below it."""

    url: str
    platform: Platform
    _clients: list[httpx.Client] = field(default_factory=list[httpx.Client])

    def token(self, address: str = ALICE, scope: Scope = Scope.USER) -> str:
        """Return a new token of a user."""
        return issue_token(self.platform.records, address, scope)[1]

    def client(self, address: str = ALICE, scope: Scope = Scope.USER, *, token: str | None = None) -> httpx.Client:
        """Return a client with a new token, or with the given one; with none if that is empty."""
        used = self.token(address, scope) if token is None else token
        headers = {"Authorization": f"Bearer {used}"} if used else {}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=60)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            client.close()


@contextmanager
def running_api(settings: Settings) -> Iterator[ApiServer]:
    """Give a server over the stores of these settings, with three users."""
    platform = Platform(settings)
    for address in (ALICE, BOB, ADMINISTRATOR):
        add_user(platform.records, address)
    config = uvicorn.Config(build_app(Platform(settings)), port=0, loop="asyncio", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:  # uvicorn tells nobody
        assert thread.is_alive(), "the server has ended"
        time.sleep(0.01)
    [listening] = server.servers[0].sockets
    api = ApiServer(f"http://127.0.0.1:{listening.getsockname()[1]}", platform)
    try:
        yield api
    finally:
        api.close()
        server.should_exit = True
        thread.join()
        platform.close()
