"""A process and its descendants, read from /proc: which there are, and what memory they hold."""

from __future__ import annotations

import os
from dataclasses import dataclass

from knockem_dagster.containers.marked_processes import kill
from knockem_dagster.containers.owners import process_start

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class TreeUse:
    """What a tree used when it was looked at: number of processes, and bytes of memory."""

    processes: int
    memory: int


class ProcessTree:
    """A root process and every descendant seen so far, those that left their parent included.

    Resident memory counts pages shared between parent and child once for each: it is an upper
    bound, cheap to read. `proportional_memory` is exact and costs about a millisecond a process.
    """

    def __init__(self, root: int) -> None:
        self._known = {root: process_start(root)}

    def look(self) -> TreeUse:
        """Find new descendants, forget ended ones, and add up resident memory."""
        memory = 0
        pending = list(self._known)
        while pending:
            pid = pending.pop()
            facts = _facts(pid)
            if facts is None or facts[0] != self._known[pid]:
                del self._known[pid]
                continue
            memory += facts[1]
            for child in _children(pid):
                if child not in self._known:
                    self._known[child] = process_start(child)
                    pending.append(child)
        return TreeUse(len(self._known), memory)

    def proportional_memory(self) -> int:
        """Return bytes of memory with every shared page divided among those who share it."""
        return sum(_proportional_memory(pid) for pid in self._known)

    def kill(self) -> None:
        """Kill every process of the tree that was seen and still is the same."""
        for pid, started in self._known.items():
            if started is not None and process_start(pid) == started:
                kill(pid)


def _facts(pid: int) -> tuple[int, int] | None:
    """Return (start, resident bytes) of a living process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - read hundreds of times a second
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else (int(fields[19]), int(fields[21]) * PAGE_BYTES)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - as above
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123
                children += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended while we looked
    return children


def _proportional_memory(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended while we looked
    except PermissionError:  # it runs as somebody else
        facts = _facts(pid)
        return facts[1] if facts else 0
    return 0
