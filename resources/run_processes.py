"""The process of a Dagster run: a run says which it is when it starts, so that its death can be noticed."""

from __future__ import annotations

import socket
from enum import Enum

import dagster as dg
import psutil

PROCESS_TAG = "knockem/process"


class Life(Enum):
    """What this machine knows of a run's process."""

    ALIVE = "alive"
    GONE = "gone"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"


def this_process() -> str:
    """Return the tag that names this process: host, process number, and when it started."""
    process = psutil.Process()
    return f"{socket.gethostname()} {process.pid} {process.create_time():.2f}"


def life_of(run: dg.DagsterRun) -> Life:
    """Tell whether the process that a run named lives; UNKNOWN when the run never came to name it."""
    tag = run.tags.get(PROCESS_TAG)
    if tag is None:
        return Life.UNKNOWN
    host, pid, started = tag.split(" ")
    if host != socket.gethostname():
        return Life.ELSEWHERE
    try:
        process = psutil.Process(int(pid))
        if process.status() == psutil.STATUS_ZOMBIE or f"{process.create_time():.2f}" != started:
            return Life.GONE
    except psutil.NoSuchProcess:
        return Life.GONE
    return Life.ALIVE
