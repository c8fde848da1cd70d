"""A mark of what a file held when a job began, and whether the file still holds it.

A file of the same size that was written at the same time is taken to be the same, as rsync and git do; of one that was
written at another time the contents decide, so that a file that was only touched, or fetched again, has not changed.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

MOST_READ = 256 << 20
"""Bytes of the files of a job that are read to mark them; of what is beyond only size and time are marked."""
GONE = "gone"
UNKNOWN = "unknown"
_DIGEST_BYTES = 8


def mark_files(folder: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """Return a mark for each file, by its path from a folder. Blocks while the files are read."""
    marks: list[str] = []
    left = MOST_READ
    for path in paths:
        mark, read = _mark(folder / path, left)
        marks.append(mark)
        left -= read
    return tuple(marks)


def is_changed(path: Path, mark: str) -> bool:
    """Tell whether a file holds something else than when it was marked; False where that cannot be seen."""
    if mark == UNKNOWN:
        return False
    try:
        found = path.stat()
        if mark == GONE:
            return True
        size, written, digest = mark.split(":")
        if (int(size), int(written)) == (found.st_size, found.st_mtime_ns):
            return False
        if not digest or int(size) != found.st_size or not stat.S_ISREG(found.st_mode):
            return True
        return digest != _digest(path, found.st_size, found.st_mtime_ns)
    except OSError:
        return False


def _mark(path: Path, most: int) -> tuple[str, int]:
    """Return the mark of a file, and how many bytes of it were read: none if it has more than `most`."""
    try:
        found = path.stat()
        size, written = found.st_size, found.st_mtime_ns
        is_read = stat.S_ISREG(found.st_mode) and size <= most
        digest = _digest(path, size, written) if is_read else ""
    except FileNotFoundError:
        return GONE, 0
    except OSError:
        return UNKNOWN, 0
    return f"{size}:{written}:{digest}", size if is_read else 0


@lru_cache(maxsize=10_000)
def _digest(path: Path, size: int, written: int) -> str:
    """Return a digest of what a file of this size and time holds: one that many jobs read is read once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)).hexdigest()
