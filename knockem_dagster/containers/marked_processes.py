"""Processes marked in their environment, and the warden that kills them when their owner dies.

This module is also run as a script, `python marked_processes.py OWNER`, by an interpreter without
site-packages: it imports nothing but the standard library's smallest parts. The script waits until
its standard input closes, which the kernel does however its owner ends, SIGKILL included, and then
kills whatever carries the owner's mark: grandchildren and daemons too, which PR_SET_PDEATHSIG misses.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

MARK = "KNOCKEM_OWNER"
"""The variable every started process carries: OWNER#NUMBER#SUBMISSION."""

MOST_LOOKS = 100
"""For processes that do not die when killed, as one that waits for a broken disk."""


def mark_of(owner: str, number: int, submission_id: str) -> str:
    """Return the value of MARK for one command."""
    return f"{owner}#{number}#{submission_id}"


def marked_processes() -> Iterator[tuple[int, str, str]]:
    """Yield (process, owner, whole mark) of every marked process one may look at."""
    wanted = b"\0" + MARK.encode() + b"="
    for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib triples the warden's start
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:  # noqa: PTH123 - as above
                environment = b"\0" + file.read()
        except OSError:  # it ended meanwhile, or is another user's
            continue
        _, found, rest = environment.partition(wanted)
        if found:
            mark = rest.partition(b"\0")[0].decode("utf-8", "replace")
            yield int(entry), mark.partition("#")[0], mark


def kill(pid: int) -> bool:
    """Send SIGKILL; tell whether the process was still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def kill_owned_by(owner: str) -> int:
    """Kill every process marked by this owner; return how many."""
    return sum(kill(pid) for pid, owned_by, _ in marked_processes() if owned_by == owner)


def end_owned_by(owner: str) -> int:
    """Kill every process marked by this owner and wait until they are gone; return how many there were."""
    number = found = kill_owned_by(owner)
    looks = 0
    while found and looks < MOST_LOOKS:
        time.sleep(0.01)
        found = kill_owned_by(owner)
        looks += 1
    return number


def kill_marked(mark: str) -> int:
    """Kill every process of one command; return how many."""
    return sum(kill(pid) for pid, _, found in marked_processes() if found == mark)


def watch_over(owner: str) -> None:
    """Wait for the end of standard input, then kill until two looks in a row find nothing.

    Two, because a child that was being started when its owner died has no mark before it has executed.
    """
    while os.read(0, 4096):
        pass
    quiet_looks = 0
    while quiet_looks < 2:
        quiet_looks = 0 if kill_owned_by(owner) else quiet_looks + 1
        time.sleep(0.02)


if __name__ == "__main__":
    watch_over(sys.argv[1])
