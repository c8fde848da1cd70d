"""Watches process trees and kills one that grows past its memory or number of processes.

Linux has no limit on a tree of processes short of a cgroup, which needs privileges. RLIMIT_AS and
RLIMIT_DATA hold for one process, not its children, count memory that is only reserved, and make
an allocation fail instead of telling that memory ran out. So one thread looks at the resident
memory of every tree: soon after its start and while it grows, seldom when it is steady.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field

from knockem_dagster.containers.process_tree import ProcessTree

FIRST_LOOK_SECONDS = 0.010
CLOSEST_LOOK_SECONDS = 0.004
LONGEST_LOOK_SECONDS = 0.050
GROWING = 1 / 16
"""The share of its limit a tree may grow between two looks before they come closer together."""


@dataclass(eq=False)
class Watched:
    """A tree under watch. `peak_memory` is bytes, 0 until the first look; `excess` says why it was killed."""

    tree: ProcessTree
    memory_limit: int
    process_limit: int
    peak_memory: int = 0
    out_of_memory: bool = False
    too_many_processes: bool = False
    _last_memory: int = 0
    _pause: float = FIRST_LOOK_SECONDS
    _due: float = field(default_factory=lambda: time.monotonic() + FIRST_LOOK_SECONDS)

    def look(self, now: float) -> None:
        """Look once, kill the tree if it must be, and decide when to look again."""
        use = self.tree.look()
        memory = use.memory
        if memory > self.memory_limit:
            memory = self.tree.proportional_memory()
        self.peak_memory = max(self.peak_memory, memory)
        self.out_of_memory = self.out_of_memory or memory > self.memory_limit
        self.too_many_processes = self.too_many_processes or use.processes > self.process_limit
        if self.out_of_memory or self.too_many_processes:
            self.tree.kill()
        growing = memory - self._last_memory > GROWING * self.memory_limit
        self._pause = CLOSEST_LOOK_SECONDS if growing else min(2 * self._pause, LONGEST_LOOK_SECONDS)
        self._last_memory = memory
        self._due = now + self._pause

    def tail_of(self, output: str) -> str:
        """Return the end of the output, and why the tree was killed if its output cannot tell."""
        if not self.too_many_processes:
            return output
        return f"{output}\nkilled: it started more than {self.process_limit} processes".strip()

    def due_in(self, now: float) -> float:
        """Return seconds until the next look; zero or less when it is due."""
        return self._due - now


class MemoryWatch:
    """The one thread that looks. It starts with the first tree and sleeps while there is none."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf

    def watch(self, root: int, *, memory_limit: int, process_limit: int) -> Watched:
        """Start watching the tree of this process. Limits: bytes, and number of processes."""
        watched = Watched(ProcessTree(root), memory_limit, process_limit)
        with self._changed:
            self._watched.add(watched)
            if self._thread is None or not self._thread.is_alive():  # a forked process has no threads of its parent
                self._thread = threading.Thread(target=self._look_for_ever, name="memory watch", daemon=True)
                self._thread.start()
            elif self._wakes_at > time.monotonic() + FIRST_LOOK_SECONDS:
                self._changed.notify()
        return watched

    def release(self, watched: Watched) -> None:
        """Stop watching. When this returns the thread is done with the tree."""
        with self._changed:
            self._watched.discard(watched)

    def _look_for_ever(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for watched in self._watched:
                    if watched.due_in(now) <= 0:
                        watched.look(now)
                pause = min((watched.due_in(now) for watched in self._watched), default=None)
                self._wakes_at = math.inf if pause is None else now + pause
                self._changed.wait(pause if pause is None else max(pause, 0.001))


MEMORY_WATCH = MemoryWatch()
"""The watch of this process; its runtimes share it."""
