"""Connections to the queue server: the one that `up` runs, found in its folder, or the one that the settings name.

What does not belong here: what the server must be and the words for what is wrong with it (queue_checks.py), what is
kept in it (jobs/queue.py), and waiting for a server that is away: nothing here tries twice.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from knockem_dagster.settings import Settings
from knockem_dagster.stores.queue_checks import check_server, explained
from knockem_dagster.stores.queue_server import queue_folder, socket_path

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
"""A server that is silent for so long counts as away; blocking commands must ask for less."""
_LOOK_SECONDS = 1.0

_OPTIONS: Mapping[str, Any] = {
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": ANSWER_SECONDS,
    "protocol": 2,  # the same answers from every version
    "client_name": "knockem",
}


def open_queue(settings: Settings) -> redis.Redis:
    """Connect to the queue server and check it; close the client after use. Commands are not repeated by themselves.

    QueueAway if it does not answer, which may pass; StoreError if it cannot hold the queue, with what to change.
    """
    with explained(settings):
        client = _client(settings)
        try:
            check_server(client.info(), settings)
        except BaseException:
            client.close()
            raise
    return client


async def open_async_queue(settings: Settings) -> redis.asyncio.Redis:
    """Do the same for asyncio: the client belongs to the running loop; end it with `aclose`.

    Its commands wait for their answers without end: whoever calls them says for how long.
    """
    with explained(settings):
        client = _async_client(settings)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                check_server(await client.info(), settings)
        except BaseException:
            await client.aclose()
            raise
    return client


def embedded_queue_answers(settings: Settings) -> bool:
    """Tell, within a second, whether the server that `up` runs is there and ready; False where another is named."""
    if settings.queue_url is not None:
        return False
    try:
        with (
            socket_path(queue_folder(settings)) as path,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        ):
            probe.settimeout(_LOOK_SECONDS)
            probe.connect(path)
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
    except OSError:  # nobody listens, or it is another user's
        return False


class _FolderConnection(redis.UnixDomainSocketConnection):
    """A connection to the embedded server, whose `path` is its folder: errors name that, not a passing number."""

    def _connect(self) -> socket.socket:
        folder: str = self.path
        with socket_path(Path(folder)) as path:
            self.path = path
            try:
                return super()._connect()
            finally:
                self.path = folder


class _AsyncFolderConnection(redis.asyncio.UnixDomainSocketConnection):
    """The same for asyncio."""

    async def _connect(self) -> None:
        folder = self.path
        with socket_path(Path(folder)) as path:
            self.path = path
            try:
                await super()._connect()
            finally:
                self.path = folder


def _client(settings: Settings) -> redis.Redis:
    options: dict[str, Any] = {**_OPTIONS, "retry": Retry(NoBackoff(), 0)}
    if settings.queue_url is not None:
        return redis.Redis.from_url(settings.queue_url, **options)
    # Its annotation forgets that connections may be to Unix sockets.
    connection = cast("type[redis.Connection]", _FolderConnection)
    return redis.Redis.from_pool(redis.ConnectionPool(connection, path=str(queue_folder(settings)), **options))


def _async_client(settings: Settings) -> redis.asyncio.Redis:
    # With a time-out the client sends through asyncio.wait_for, which before Python 3.12 loses cancellations; callers
    # put their own around it.
    options: dict[str, Any] = {**_OPTIONS, "socket_timeout": None, "retry": AsyncRetry(NoBackoff(), 0)}
    if settings.queue_url is not None:
        return redis.asyncio.Redis.from_url(settings.queue_url, **options)
    pool = redis.asyncio.ConnectionPool(_AsyncFolderConnection, path=str(queue_folder(settings)), **options)
    return redis.asyncio.Redis.from_pool(pool)
