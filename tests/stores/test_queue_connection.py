"""A queue server is used when it can hold the queue; any other is refused with what to change, and no password."""

from __future__ import annotations

import asyncio
import http.server
import socket
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from knockem_dagster.errors import QueueAway, StoreError
from knockem_dagster.settings import Settings, load_settings
from knockem_dagster.stores.queue_connection import embedded_queue_answers, open_async_queue, open_queue
from tests.services.queues import QueueServer, running_queue, served_queue

DEEP = "a folder " + "x" * 150


def open_and_close(settings: Settings) -> None:
    open_queue(settings).close()


def open_and_close_async(settings: Settings) -> None:
    async def go() -> None:
        await (await open_async_queue(settings)).aclose()

    asyncio.run(go())


@pytest.fixture(params=[open_and_close, open_and_close_async], ids=["sync", "async"])
def opening(request: pytest.FixtureRequest) -> Callable[[Settings], None]:
    return request.param


def refusal(opening: Callable[[Settings], None], settings: Settings, *, kind: type[StoreError] = StoreError) -> str:
    """Return what is said when the queue cannot be opened; neither it nor its traceback holds the password."""
    with pytest.raises(StoreError) as refused:
        opening(settings)
    assert type(refused.value) is kind
    assert "secret" not in "".join(traceback.format_exception(refused.value))
    return str(refused.value)


def served(address: str, *, user: str = "") -> Settings:
    return load_settings(queue_url=f"redis://{user}{address}/0")


@contextmanager
def listener(reply: bytes | None, *, to_information: bytes | None = None) -> Iterator[str]:
    """Give the address of something that gives every command the same answer, or another to INFO.

    Without a reply it hangs up.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):  # the end of this block
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(ConnectionError):
                        while request := connection.recv(4096):
                            for command in request.split(b"*")[1:] or [request]:
                                if reply is None:
                                    raise ConnectionAbortedError
                                asks = to_information is not None and b"$4\r\nINFO\r\n" in command
                                connection.sendall(to_information if asks else reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_embedded_queue_is_used_from_a_deep_folder_by_both_kinds_of_client(tmp_path: Path) -> None:
    async def read(settings: Settings) -> object:
        client = await open_async_queue(settings)
        try:
            return await client.get("a")
        finally:
            await client.aclose()

    with running_queue(tmp_path / DEEP) as queue:
        assert len(str(queue.folder)) > 150
        assert queue.client().set("a", "b")
        assert asyncio.run(read(queue.settings)) == b"b"


def test_clients_leave_no_file_open_and_outlive_the_server(tmp_path: Path) -> None:
    with running_queue(tmp_path) as queue:
        client = queue.client()
        client.set("a", "b")
        opened = len(list(Path("/proc/self/fd").iterdir()))
        queue.kill()
        with pytest.raises(RedisConnectionError) as away:
            client.get("a")
        assert "/proc/" not in str(away.value)
        queue.start()
        assert client.get("a") == b"b"
        assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_whether_the_embedded_queue_answers(tmp_path: Path) -> None:
    queue = QueueServer(tmp_path)
    assert not embedded_queue_answers(queue.settings)
    with running_queue(tmp_path) as queue:
        assert embedded_queue_answers(queue.settings)
        assert not embedded_queue_answers(load_settings(home=tmp_path, queue_url="redis://127.0.0.1:9"))
        queue.kill()
        assert (queue.folder / "queue.sock").exists()
        assert not embedded_queue_answers(queue.settings)


def test_without_the_embedded_server_up_is_advised(opening: Callable[[Settings], None], tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, queue_url=None)
    said = refusal(opening, settings, kind=QueueAway)
    assert said.startswith(f"the queue server in {settings.folder / 'queue'} cannot be reached (No such file")
    assert "start it with `./knockem up`" in said


def test_nothing_listens(opening: Callable[[Settings], None]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        said = refusal(opening, served(address, user="someone:secret@"), kind=QueueAway)
    assert f"the queue server at {address}/0 cannot be reached (" in said
    assert "start it, or correct the address in KNOCKEM_QUEUE_URL" in said


def test_something_silent_listens(opening: Callable[[Settings], None], monkeypatch: pytest.MonkeyPatch) -> None:
    module = "knockem_dagster.stores.queue_connection"
    monkeypatch.setattr(f"{module}._OPTIONS", {"socket_timeout": 0.05, "protocol": 2})
    monkeypatch.setattr(f"{module}.ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = refusal(opening, served(f"127.0.0.1:{silent.getsockname()[1]}"), kind=QueueAway)
    assert "does not answer in time" in said


def test_an_http_server_listens(opening: Callable[[Settings], None]) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            said = refusal(opening, served(f"127.0.0.1:{server.server_port}", user=":secret@"))
        finally:
            server.shutdown()
            thread.join()
    assert "speaks neither Redis nor Valkey" in said


def test_something_hangs_up(opening: Callable[[Settings], None]) -> None:
    with listener(None) as address:
        said = refusal(opening, served(address, user=":secret@"), kind=QueueAway)
    assert "is no Redis or Valkey server" in said


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_something_else_answers(opening: Callable[[Settings], None], reply: bytes) -> None:
    with listener(reply) as address:
        assert "speaks neither Redis nor Valkey" in refusal(opening, served(address, user=":secret@"))


def test_a_server_that_repeats_the_password_is_not_quoted(opening: Callable[[Settings], None]) -> None:
    with listener(b"-ERR unknown command 'AUTH', with args beginning with: 'secret'\r\n") as address:
        assert "hidden" in refusal(opening, served(address, user=":secret@"))
    with listener(b"-DENIED running in protected mode\r\n") as address:
        assert "refuses to talk: DENIED running in protected mode" in refusal(opening, served(address))


def test_a_server_without_tls(opening: Callable[[Settings], None]) -> None:
    with listener(b"-ERR\r\n") as address:
        said = refusal(opening, load_settings(queue_url=f"rediss://:secret@{address}/0"))
    assert "does not speak TLS" in said


def test_an_old_version(opening: Callable[[Settings], None]) -> None:
    information = b"redis_version:5.0.7\r\nrole:master\r\nmaxmemory_policy:noeviction"
    with listener(b"+OK\r\n", to_information=b"$%d\r\n%b\r\n" % (len(information), information)) as address:
        said = refusal(opening, served(address))
    assert "it is version 5.0.7; use Redis 6.2 or later, or Valkey" in said


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--maxmemory-policy", "allkeys-lru"], "its maxmemory-policy is allkeys-lru, so it may drop jobs"),
        (["--maxmemory-policy", "volatile-ttl"], "set `maxmemory-policy noeviction` in its configuration"),
        (["--replicaof", "127.0.0.1", "9"], "it is a slave, which cannot be written to"),
        (["--appendonly", "no", "--cluster-enabled", "yes"], "it runs in cluster mode"),
    ],
)
def test_an_unfit_server(opening: Callable[[Settings], None], tmp_path: Path, options: list[str], fault: str) -> None:
    with served_queue(tmp_path, *options) as address:
        said = refusal(opening, served(address))
    assert said.startswith(f"the queue server at {address}/0 cannot hold the queue: ")
    assert fault in said


def test_passwords_users_and_databases(opening: Callable[[Settings], None], tmp_path: Path) -> None:
    reader = ("--user", "reader", "on", ">secret", "~*", "+get")
    with served_queue(tmp_path, "--requirepass", "a secret/with@all", *reader, "--databases", "2") as address:
        opening(served(address, user=":a%20secret%2Fwith%40all@"))
        for user in ("", ":wrong-secret@", "someone:secret@"):
            said = refusal(opening, served(address, user=user))
            assert said.startswith(f"the queue server at {address}/0 refuses the user or the password, or wants one;")
        assert "does not let this user" in refusal(opening, served(address, user="reader:secret@"))
        settings = load_settings(queue_url=f"redis://:a%20secret%2Fwith%40all@{address}/7")
        assert "refuses to talk: DB index is out of range" in refusal(opening, settings)


@pytest.mark.parametrize("options", ["socket_timeout=secret", "colour=secret"])
def test_options_that_do_not_fit(opening: Callable[[Settings], None], options: str) -> None:
    settings = load_settings(queue_url=f"redis://:secret@127.0.0.1:9/0?{options}")
    assert "correct what follows the question mark" in refusal(opening, settings)


def test_an_address_on_a_unix_socket(opening: Callable[[Settings], None], tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short, running_queue(tmp_path) as queue:
        link = Path(short) / "queue"
        link.symlink_to(queue.folder)
        client = queue.client()
        before = client.info("stats")["total_connections_received"]
        opening(load_settings(queue_url=f"unix://{link}/queue.sock"))
        assert client.info("stats")["total_connections_received"] > before


def test_a_server_that_is_loading_is_away(opening: Callable[[Settings], None]) -> None:
    with listener(b"-LOADING Valkey is loading the dataset in memory\r\n") as address:
        assert "still loading" in refusal(opening, served(address), kind=QueueAway)


def test_commands_of_a_client_are_not_repeated(tmp_path: Path) -> None:
    with running_queue(tmp_path) as queue:
        client = queue.client()
        assert client.get_retry().get_retries() == 0
        assert client.info()["connected_clients"] == 1
