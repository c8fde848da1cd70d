"""Which process a run is, and whether that one still lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import dagster as dg
import psutil
import pytest

from resources.run_processes import PROCESS_TAG, Life, life_of, this_process


def run_of(process: str | None) -> dg.DagsterRun:
    return dg.DagsterRun(job_name="job", tags={} if process is None else {PROCESS_TAG: process})


def test_this_process_lives() -> None:
    assert life_of(run_of(this_process())) is Life.ALIVE


@pytest.mark.parametrize(
    ("process", "life"),
    [
        (None, Life.UNKNOWN),
        (f"{socket.gethostname()} {os.getpid()} 1.00", Life.GONE),
        ("another-machine 1 1.00", Life.ELSEWHERE),
    ],
    ids=["unnamed", "number used again", "another machine"],
)
def test_life_of_a_run(process: str | None, life: Life) -> None:
    assert life_of(run_of(process)) is life


def test_killed_process_is_gone_before_and_after_it_is_reaped() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = run_of(f"{socket.gethostname()} {process.pid} {psutil.Process(process.pid).create_time():.2f}")
    assert life_of(run) is Life.ALIVE
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert life_of(run) is Life.GONE
    process.communicate()
    assert life_of(run) is Life.GONE
