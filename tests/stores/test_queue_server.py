"""The embedded queue server keeps what it is given, is nobody else's, and gets going again."""

from __future__ import annotations

import os
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from knockem_dagster.errors import StoreError
from knockem_dagster.settings import load_settings
from knockem_dagster.stores.queue_server import SOCKET, queue_folder, server_command, set_aside_unreadable
from tests.services.queues import QueueServer, running_queue, start_marked
from tests.services.waiting import until

NOBODY = 65534
DEEP = "a folder " + "x" * 150


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_keeps_what_it_is_given_when_it_is_killed(tmp_path: Path) -> None:
    with running_queue(tmp_path / DEEP) as queue:
        client = queue.client()
        client.rpush("list", *range(1000))
        queue.kill()
        queue.start()
        assert client.llen("list") == 1000
        queue.kill()
        queue.forget()
        queue.start()
        assert client.llen("list") == 0


def test_it_listens_on_its_socket_only_and_evicts_and_snapshots_nothing(tmp_path: Path) -> None:
    with running_queue(tmp_path) as queue:
        assert queue.process is not None
        tables = [Path(f"/proc/{queue.process.pid}/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")]
        listed = {line.split()[9] for table in tables for line in table.read_text().splitlines()[1:]}
        files = Path(f"/proc/{queue.process.pid}/fd").iterdir()
        own = {str(file.readlink()).removeprefix("socket:[").removesuffix("]") for file in files}
        assert not listed & own
        settings = queue.client().config_get("maxmemory-policy", "save", "appendonly", "appendfsync", "dir")
        wanted = {"maxmemory-policy": "noeviction", "save": "", "appendonly": "yes", "appendfsync": "everysec"}
        assert settings == {**wanted, "dir": str(queue.folder)}


def test_its_folder_is_private_even_if_it_was_not(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", queue_url=None)
    folder = queue_folder(settings)
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with running_queue(settings.home):
        assert mode(folder) == 0o700
        assert mode(folder / SOCKET) == 0o700
    fresh = load_settings(home=tmp_path / "fresh", queue_url=None)
    server_command(fresh)
    assert {mode(each) for each in (fresh.home, fresh.folder, queue_folder(fresh))} == {0o700}


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user may pass through, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="knockem test ") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(attempt: Callable[[], object]) -> str:
    """Return what an attempt of another user comes to: the name of its exception, or nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        came_to = "it did not run"
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            attempt()
            came_to = ""
        except OSError as error:
            came_to = type(error).__name__
        finally:
            os.write(writing, came_to.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return answer.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_can_neither_connect_nor_read(reachable: Path) -> None:
    with running_queue(reachable / "home") as queue:
        path = queue.folder / SOCKET

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))

        def look() -> None:
            list(queue.settings.home.iterdir())

        def read() -> None:
            next((queue.folder / "appendonlydir").glob("*.manifest")).read_bytes()

        assert [as_nobody(attempt) for attempt in (connect, look, read)] == ["PermissionError"] * 3
        for folder in (queue.settings.home, queue.settings.folder):
            folder.chmod(0o755)
        assert as_nobody(look) == ""
        assert [as_nobody(attempt) for attempt in (connect, read)] == ["PermissionError"] * 2
        queue.folder.chmod(0o755)
        assert as_nobody(connect) == "PermissionError"
        path.chmod(0o777)
        assert as_nobody(connect) == ""


def spoil(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[: middle - 40] + b"\xff" * 80 + content[middle + 40 :])


def append(path: Path, more: bytes) -> None:
    path.write_bytes(path.read_bytes() + more)


BROKEN: dict[str, Callable[[Path], object]] = {
    "commands": lambda data: spoil(next(data.glob("*.incr.aof"))),
    "base": lambda data: spoil(next(data.glob("*.base.rdb"))),
    "a part is missing": lambda data: next(data.glob("*.base.rdb")).unlink(),
    "no manifest": lambda data: next(data.glob("*.manifest")).write_text("nonsense"),
    "zeros at the end": lambda data: append(next(data.glob("*.incr.aof")), b"\0" * 4096),
}


@pytest.fixture
def filled(tmp_path: Path) -> QueueServer:
    """A server that does not run, with something in each of its files."""
    with running_queue(tmp_path) as queue:
        client = queue.client()
        client.set("a", "b" * 100)
        client.bgrewriteaof()
        until(lambda: not client.info()["aof_rewrite_in_progress"])
        client.rpush("list", "c")
        for _ in range(50):
            client.rpush("list", "d")
        queue.kill()
    return queue


def end_of_start(queue: QueueServer, *options: str) -> int:
    """Start it and return the exit code with which it ends."""
    process = start_marked([*server_command(queue.settings), *options], queue.log)
    try:
        return process.wait(30)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("broken", BROKEN)
def test_a_file_that_cannot_be_loaded_is_set_aside(filled: QueueServer, broken: str) -> None:
    BROKEN[broken](filled.folder / "appendonlydir")
    code = end_of_start(filled)
    aside = set_aside_unreadable(filled.settings, log=filled.log, exit_code=code)
    assert aside is not None
    assert aside.parent == filled.folder
    assert list(aside.glob("*.aof"))
    with running_queue(filled.settings.home) as queue:
        assert queue.client().dbsize() == 0


def test_a_file_without_its_last_bytes_is_loaded(filled: QueueServer) -> None:
    last = next((filled.folder / "appendonlydir").glob("*.incr.aof"))
    os.truncate(last, last.stat().st_size - 7)
    with running_queue(filled.settings.home) as queue:
        assert queue.client().lrange("list", 0, -1) == [b"c"] + [b"d"] * 49


def test_a_file_that_is_not_to_blame_stays(filled: QueueServer) -> None:
    def aside(code: int) -> Path | None:
        return set_aside_unreadable(filled.settings, log=filled.log, exit_code=code)

    assert aside(1) is None  # the log ends with a start that went well
    assert end_of_start(filled, "--no-such-setting", "1") == 1
    assert aside(1) is None
    spoil(next((filled.folder / "appendonlydir").glob("*.incr.aof")))
    assert end_of_start(filled) == 1
    assert aside(-signal.SIGKILL) is None
    assert aside(0) is None
    assert (filled.folder / "appendonlydir").exists()


def test_what_a_killed_server_left_unfinished_is_removed(filled: QueueServer) -> None:
    (filled.folder / "temp-rewriteaof-bg-1.aof").write_bytes(b"x")
    with running_queue(filled.settings.home):
        assert {path.name for path in filled.folder.iterdir()} == {"appendonlydir", SOCKET}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot make .*home/testing/queue private to you: .*KNOCKEM_HOME"):
        server_command(load_settings(home=tmp_path / "home", queue_url=None))


def test_a_machine_without_the_server_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise metadata.PackageNotFoundError(name)

    settings = load_settings(home=tmp_path, queue_url=None)
    others = metadata.files("pytest")
    for found in (missing, lambda _: [], lambda _: others):
        monkeypatch.setattr("knockem_dagster.stores.queue_server.metadata.files", found)
        with pytest.raises(StoreError, match="name it in KNOCKEM_QUEUE_URL"):
            server_command(settings)
