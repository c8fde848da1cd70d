"""The lock by which `up` is alone with its folder, and by which others know that it runs.

The lock dies with its holder, at once and however that ends. Dagster's own sign of life does not say
this: it counts a daemon as healthy for half an hour after its last heartbeat.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from knockem_dagster.errors import KnockemError
from knockem_dagster.settings import Settings

TRIES = 60
PAUSE_SECONDS = 0.05
"""Whoever asks `is_up` holds the lock for a moment, longer on a busy machine; `up` tries again for a few seconds rather
than mistake that for another `up`."""


class AlreadyUp(KnockemError):
    """Another `up` holds the folder."""


@contextmanager
def only_one(settings: Settings) -> Generator[IO[str]]:
    """Hold the lock, giving the file to note the address in. Raises AlreadyUp when another `up` has it."""
    with _path(settings).open("a+", encoding="utf-8") as note:
        if not _taken(note):
            note.seek(0)
            where = note.read().strip() or "starting"
            raise AlreadyUp(f"`./knockem up` runs already for {settings.folder}: {where}")
        note.truncate(0)
        yield note
        note.truncate(0)


def is_up(settings: Settings) -> bool:
    """Tell whether an `up` runs for this folder."""
    path = _path(settings)
    if not path.exists():
        return False
    with path.open(encoding="utf-8") as note:
        try:
            fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _taken(note: IO[str]) -> bool:
    """Take the lock; tell whether that succeeded."""
    for _ in range(TRIES):
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE_SECONDS)
        else:
            return True
    return False


def _path(settings: Settings) -> Path:
    return settings.folder / "up.lock"
