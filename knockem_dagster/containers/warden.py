"""Starts this process's warden: the small process that kills what we started should we die first."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading

from knockem_dagster.containers import marked_processes
from knockem_dagster.containers.owners import current_owner

_lock = threading.Lock()
_wardens: dict[int, subprocess.Popen[bytes]] = {}


def ensure_warden() -> None:
    """Start the warden of this process unless it has one. Costs a few milliseconds, once.

    It never carries a mark: the warden of an outer owner would kill it before it has done its work.
    """
    if os.getpid() in _wardens:
        return
    with _lock:
        if os.getpid() in _wardens:
            return
        _wardens[os.getpid()] = subprocess.Popen(
            [sys.executable, "-I", "-S", marked_processes.__file__, str(current_owner())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: value for name, value in os.environ.items() if name != marked_processes.MARK},
            start_new_session=True,  # a signal to our whole group must not take the warden with it
        )
        atexit.register(_dismiss)


def _dismiss() -> None:
    warden = _wardens.pop(os.getpid(), None)
    if warden is not None and warden.stdin is not None:
        warden.stdin.close()
        warden.wait()
