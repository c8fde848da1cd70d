"""`up`: the UI answers, unfinished submissions are finished, what dies is started again, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from knockem_dagster.api import Submission
from knockem_dagster.containers.marked_processes import marked_processes
from knockem_dagster.records.submissions import State
from knockem_dagster.settings import load_settings
from knockem_dagster.stores.queue_connection import embedded_queue_answers
from tests.services.command_line import command_line, environment_of, knockem, tiny_submission

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 180.0


def until(condition: Callable[[], bool], up: subprocess.Popen[str]) -> None:
    """Wait for something that `up` brings about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert up.poll() is None, "`up` has ended"
        time.sleep(0.1)


def processes_of(up: subprocess.Popen[str]) -> dict[int, str]:
    """Return the command of every process that `up` has started, by its number."""
    found: dict[int, str] = {}
    for pid, owner, _ in marked_processes():
        if owner.split("~")[3] == str(up.pid):
            try:
                found[pid] = " ".join(psutil.Process(pid).cmdline())
            except psutil.NoSuchProcess:
                continue
    return found


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a home"


@contextmanager
def started_up(home: Path, out: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Give `up` as a process that writes to `out`."""
    with out.open("w") as written:
        process = subprocess.Popen(
            command_line("up", *arguments), env=environment_of(home), stdout=written, stderr=written, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            sys.stdout.write(out.read_text())  # shown where the test fails


@pytest.fixture
def up(home: Path, tmp_path: Path, taken_port: int) -> Iterator[subprocess.Popen[str]]:
    with started_up(home, tmp_path / "out", "--port", str(taken_port)) as process:
        yield process


def test_up_finishes_submissions_restarts_what_dies_and_leaves_nothing(
    home: Path, up: subprocess.Popen[str], tmp_path: Path, taken_port: int
) -> None:
    def said() -> str:
        return (tmp_path / "out").read_text()

    submitted = knockem("submit", tiny_submission(tmp_path / "study"), home=home)
    id = submitted.stdout.strip()
    until(lambda: "The Dagster UI, which is linked there, answers." in said(), up)
    assert f"Port {taken_port} is taken" in said()
    url = said().split("Knockem is at ")[1].split()[0]
    with urllib.request.urlopen(url) as answer:
        [ui] = re.findall('<a href="([^"]+)">Dagster UI</a>', answer.read().decode())
    with urllib.request.urlopen(f"{ui}/server_info") as answer:
        assert "dagster_version" in json.load(answer)

    until(lambda: "The first administrator logs in at" in said(), up)
    [api, token] = said().split("The first administrator logs in at ")[1].split()[0].split("/#")
    asked = urllib.request.Request(f"{api}/v1/submissions", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked) as answer:
        assert [each["id"] for each in json.load(answer)["items"]] == [id]
    logs = [path.read_text(errors="replace") for path in (home / "testing").rglob("*.log")]
    assert logs and not any(token in log for log in logs)

    second = knockem("up", home=home)
    assert second.returncode == 1
    assert "runs already" in second.stderr
    assert url in second.stderr

    settings = load_settings(home=home, environment="testing")
    with Submission.open(id, settings) as study:
        until(lambda: study.state is State.COMPLETED, up)

    assert embedded_queue_answers(settings)

    (webserver,) = [pid for pid, command in processes_of(up).items() if "dagster_webserver" in command]
    os.kill(webserver, signal.SIGKILL)
    until(lambda: said().count("The Dagster UI, which is linked there") == 2, up)
    assert "The webserver was killed by SIGKILL; it is started again" in said()

    up.terminate()
    assert up.wait(timeout=60) == 0
    assert processes_of(up) == {}
    assert not embedded_queue_answers(settings)
    assert "Everything has ended" in said()

    later = tmp_path / "said later"
    with started_up(home, later) as next_up:
        until(lambda: "Knockem is at" in later.read_text(), next_up)
        next_up.terminate()
        assert next_up.wait(timeout=60) == 0
    assert "administrator" not in later.read_text(), "who logs in first is told once"
