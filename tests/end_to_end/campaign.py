"""A seeded series of blows against everything that works for a home: what is killed, and when."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil

from tests.end_to_end.homes import PATIENCE_SECONDS, Home, command_line_of, kill, set_pace, until

LOG = logging.getLogger(__name__)


class Target(StrEnum):
    """What a blow hits; a campaign goes through them in this order."""

    RUN = "run"
    EVERYTHING = "everything"
    DAEMON = "daemon"
    WEBSERVER = "webserver"
    CONTAINER = "container"
    SUPERVISOR = "up alone"


class Moment(StrEnum):
    """When a blow falls: while a run works, at a commit of the record, or whenever."""

    WORKING = "while a run works"
    COMMIT = "at a store commit"
    ANY = "at any moment"


@dataclass
class Campaign:
    """A seeded series of blows against a home's `up`, which is started again where nothing else would."""

    home: Home
    random: random.Random
    next_seed: int = 1
    blows: Counter[tuple[Target, Moment]] = field(default_factory=Counter)

    def run(self, blows: int) -> None:
        """Deal the blows, then leave `up` alone until everything is finished."""
        self.keep_busy()
        self.home.up()
        for number in range(blows):
            moments = [Moment.WORKING, Moment.COMMIT, Moment.COMMIT, Moment.ANY]
            self.deal(list(Target)[number % len(Target)], self.random.choice(moments))
            self.keep_busy()
        set_pace(self.home.folder, 0.0)
        until(self.home.is_finished, "the submissions to be finished by `up` alone", seconds=2 * PATIENCE_SECONDS)

    def keep_busy(self) -> None:
        """Submit another study when nothing is left to work on."""
        known = self.home.submissions().values() if self.home.documents.exists() else ()
        if all(document["state"] == "completed" for document in known):
            self.home.submit(seed=self.next_seed, containerEnv={"EXPLICIT_MODE": self.mode(self.next_seed)})
            self.next_seed += 1

    @staticmethod
    def mode(seed: int) -> str:
        """Return how the study with this seed competes: exactly and by chance in turns."""
        return "exact" if seed % 2 else "wright-fisher"

    def deal(self, target: Target, moment: Moment) -> None:
        """Wait for the moment and kill the target."""
        if moment is not Moment.ANY:
            until(self._is_at_work, "a run that works")
        time.sleep(self.random.uniform(0.0, 3.0 if moment is not Moment.ANY else 12.0))
        if moment is Moment.COMMIT:
            self._await_commit()
        if self._hit(target):
            self.blows[target, moment] += 1
            LOG.info("%d: %s %s", self.blows.total(), target, moment)
        else:
            self.deal(target, Moment.WORKING)

    def _is_at_work(self) -> bool:
        self.keep_busy()
        return bool(self.home.run_processes()) and bool(self.home.serving_processes())

    def _await_commit(self) -> None:
        """Return right after the record's log has changed: its writer is inside a commit or just past it."""
        log = self.home.documents.with_name(f"{self.home.documents.name}-wal")
        before = _state_of(log)
        deadline = time.monotonic() + 10
        while _state_of(log) == before and time.monotonic() < deadline:
            pass

    def _hit(self, target: Target) -> bool:
        """Kill; tell whether there was something to kill."""
        up = self.home.process
        assert up is not None
        assert up.poll() is None, "up has ended by itself"
        match target:
            case Target.RUN:
                return sum(map(kill, self.home.run_processes())) > 0
            case Target.CONTAINER:
                serving = self.home.serving_processes()
                return bool(serving) and kill(self.random.choice(serving))
            case Target.DAEMON | Target.WEBSERVER:
                module = "dagster._daemon" if target is Target.DAEMON else "dagster_webserver"
                services = [child for child in psutil.Process(up.pid).children() if module in command_line_of(child)]
                return sum(kill(service.pid) for service in services) > 0
            case Target.SUPERVISOR:
                kill(up.pid)
            case Target.EVERYTHING:
                for pid in self.home.processes():
                    kill(pid)
        up.wait()
        self.home.up()
        return True


def _state_of(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
