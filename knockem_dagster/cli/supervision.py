"""Keeping a few services running, and leaving nothing running afterwards.

A service is a long-lived command with children of its own (Dagster's code servers and run workers). All
descendants carry a mark in their environment, by which they are found, and by which the warden kills
them should we be killed ourselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from knockem_dagster.containers.marked_processes import MARK, kill, mark_of, marked_processes
from knockem_dagster.containers.owners import current_owner
from knockem_dagster.containers.warden import ensure_warden

LOOK_SECONDS = 0.2
STEADY_SECONDS = 20.0
"""A service that ran for so long is restarted at once; one that ended earlier after a pause that doubles."""
LONGEST_PAUSE_SECONDS = 30.0
PATIENCE_SECONDS = 8.0
"""How long services have to end by themselves when asked to."""
LARGEST_LOG_BYTES = 10 << 20

Say = Callable[[str], None]


@dataclass(slots=True)
class Service:
    """A service: `command` is made anew for every start; its output is appended to `log`.

    `repair` is told with which exit code it ended, may mend what ended it, and returns what it did, if anything.
    A service with `ends_last` serves the others: it is asked to end when they have ended.
    """

    name: str
    command: Callable[[], Sequence[str]]
    log: Path
    repair: Callable[[int], str] | None = None
    ends_last: bool = False
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.0
    due: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """Starts services, starts again what ends, and ends all. `say` is told what happens, a line at a time."""

    services: Sequence[Service]
    environment: Mapping[str, str]
    folder: Path
    say: Say
    _mark: str = field(default_factory=lambda: mark_of(str(current_owner()), 0, ""))

    def run(self, over: threading.Event, on_look: Callable[[], None]) -> None:
        """Keep the services running until `over` is set; `on_look` is called a few times a second."""
        ensure_warden()
        try:
            while not over.is_set():
                for service in self.services:
                    self._look_after(service)
                on_look()
                over.wait(LOOK_SECONDS)
            names = " and ".join(service.name for service in self.services)
            self.say(f"Ending {names}, and what they run; this may take ten seconds.")
        finally:
            self.end()

    def end(self) -> None:
        """Ask everything to end, then kill what has not. Returns when nothing is left."""
        serving = {each.process.pid for each in self.services if each.ends_last and each.process is not None}
        self._end_all_but(serving)
        self._end_all_but(set())
        for service in self.services:
            if service.process is not None:
                service.process.wait()

    def _end_all_but(self, spared: Set[int]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        asked: set[int] = set()
        while left := set(self._marked()) - spared:
            late = time.monotonic() >= deadline
            for pid in left if late else left - asked:
                if late:
                    kill(pid)
                else:
                    _ask_to_end(pid)
            asked |= left
            time.sleep(LOOK_SECONDS / 4)

    def _marked(self) -> Iterator[int]:
        """Yield the processes of all services that have not ended."""
        for service in self.services:
            if service.process is not None:
                service.process.poll()  # reap it: a zombie is not running
        for pid, _, mark in marked_processes():
            if mark == self._mark:
                yield pid

    def _look_after(self, service: Service) -> None:
        moment = time.monotonic()
        if service.process is None:
            if moment >= service.due:
                self._start(service)
            return
        code = service.process.poll()
        if code is None:
            return
        service.process = None
        steady = moment - service.started >= STEADY_SECONDS
        service.pause = 0.0 if steady else min(LONGEST_PAUSE_SECONDS, max(1.0, 2 * service.pause))
        service.due = moment + service.pause
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        pause = f" in {service.pause:.0f} s" if service.pause else ""
        self.say(f"The {service.name} {ended}; it is started again{pause}. Its output is in {service.log}")
        if service.repair is not None and (repaired := service.repair(code)):
            self.say(repaired)

    def _start(self, service: Service) -> None:
        service.log.parent.mkdir(parents=True, exist_ok=True)
        if service.log.exists() and service.log.stat().st_size > LARGEST_LOG_BYTES:
            service.log.replace(service.log.with_suffix(".old.log"))
        with service.log.open("ab") as log:
            service.process = subprocess.Popen(
                service.command(),
                cwd=self.folder,
                env={**self.environment, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we end them in order
            )
        service.started = time.monotonic()


@contextmanager
def ended_by_signals() -> Generator[threading.Event]:
    """Give an event that SIGINT, SIGTERM and SIGHUP set while the block lasts."""
    over = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        over.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask_to_end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
