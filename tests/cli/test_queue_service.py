"""`up` keeps the queue server going, ends it last, and does not outlive it or leave it behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from knockem_dagster.cli.queue_service import queue_services
from knockem_dagster.cli.supervision import Service, Supervisor
from knockem_dagster.errors import StoreError
from knockem_dagster.settings import Settings, load_settings
from knockem_dagster.stores.queue_connection import embedded_queue_answers, open_queue
from knockem_dagster.stores.queue_server import queue_folder
from tests.services.command_line import environment_of
from tests.services.queues import served_queue
from tests.services.waiting import until

ROOT = Path(__file__).parents[2]
DEEP = "a folder " + "x" * 150


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / DEEP, queue_url=None)


@pytest.fixture
def log(settings: Settings) -> Path:
    return settings.folder / "logs" / "queue.log"


def pid_of(settings: Settings) -> int:
    with open_queue(settings) as client:
        return int(client.info()["process_id"])


def supervise(services: list[Service], on_look: Callable[[threading.Event], None]) -> list[str]:
    """Supervise in this thread until `on_look` sets the event it is given; return what was said."""
    over = threading.Event()
    said: list[str] = []
    deadline = time.monotonic() + 30

    def look() -> None:
        assert time.monotonic() < deadline, f"waited in vain; said so far: {said}"
        on_look(over)

    Supervisor(services, os.environ, ROOT, said.append).run(over, look)
    return said


def test_it_dies_with_a_supervisor_that_is_killed(settings: Settings, log: Path) -> None:
    program = """
        import os, sys, threading
        from pathlib import Path
        from knockem_dagster.cli.queue_service import queue_services
        from knockem_dagster.cli.supervision import Supervisor
        from knockem_dagster.settings import load_settings
        services = queue_services(load_settings(), Path(sys.argv[1]))
        Supervisor(services, os.environ, Path("/"), lambda line: None).run(threading.Event(), lambda: None)
    """
    supervisor = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), log], env=environment_of(settings.home)
    )
    try:
        until(lambda: embedded_queue_answers(settings))
        pid = pid_of(settings)
    finally:
        supervisor.kill()
        supervisor.wait()
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert not embedded_queue_answers(settings)


def test_a_killed_server_is_started_again_with_what_it_held(settings: Settings, log: Path) -> None:
    killed: list[int] = []

    def kill_once(over: threading.Event) -> None:
        if not embedded_queue_answers(settings):
            return
        if not killed:
            with open_queue(settings) as client:
                client.set("a", "b")
            killed.append(pid_of(settings))
            os.kill(killed[0], signal.SIGKILL)
        elif pid_of(settings) != killed[0]:
            with open_queue(settings) as client:
                assert client.get("a") == b"b"
            over.set()

    said = supervise([*queue_services(settings, log)], kill_once)
    assert "The queue was killed by SIGKILL; it is started again" in said[0]
    assert len(said) == 2
    assert not embedded_queue_answers(settings)


def test_a_file_that_cannot_be_loaded_is_set_aside_and_named(settings: Settings, log: Path) -> None:
    data = queue_folder(settings) / "appendonlydir"
    data.mkdir(parents=True)
    (data / "appendonly.aof.manifest").write_text("nonsense")

    def end_when_it_answers(over: threading.Event) -> None:
        if embedded_queue_answers(settings) and data.exists():
            over.set()

    said = supervise([*queue_services(settings, log)], end_when_it_answers)
    assert "The queue ended with exit code 1; it is started again in 1 s." in said[0]
    (aside,) = queue_folder(settings).glob("unreadable-*")
    assert said[1] == f"The queue's file cannot be loaded; it is now {aside}, and the queue is empty."
    assert (aside / "appendonly.aof.manifest").read_text() == "nonsense"


def test_it_is_there_until_all_others_have_ended(settings: Settings, log: Path, tmp_path: Path) -> None:
    program = f"""
        import pathlib, signal, time
        from knockem_dagster.settings import load_settings
        from knockem_dagster.stores.queue_connection import open_queue
        ended = []
        signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
        pathlib.Path({str(tmp_path / "runs")!r}).touch()
        while not ended:
            time.sleep(0.01)
        time.sleep(0.5)
        with open_queue(load_settings(home={str(settings.home)!r}, queue_url=None)) as client:
            client.set("handed", "back")
        pathlib.Path({str(tmp_path / "handed back")!r}).touch()
    """
    user = Service("user", lambda: [sys.executable, "-c", textwrap.dedent(program)], tmp_path / "user.log")

    def end_when_both_run(over: threading.Event) -> None:
        if (tmp_path / "runs").exists() and embedded_queue_answers(settings):
            over.set()

    supervise([*queue_services(settings, log), user], end_when_both_run)
    assert (tmp_path / "handed back").exists(), (tmp_path / "user.log").read_text()
    assert not embedded_queue_answers(settings)


def test_a_served_queue_is_checked_instead(tmp_path: Path, log: Path) -> None:
    with served_queue(tmp_path, "--databases", "1") as address:
        assert queue_services(load_settings(queue_url=f"redis://{address}/0"), log) == ()
    with (
        served_queue(tmp_path, "--maxmemory-policy", "allkeys-lru") as address,
        pytest.raises(StoreError, match="maxmemory-policy is allkeys-lru"),
    ):
        queue_services(load_settings(queue_url=f"redis://{address}/0"), log)
