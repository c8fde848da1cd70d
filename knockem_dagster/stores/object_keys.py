"""What a key is, and the files below a folder as the objects that they are: the same in a directory as in a bucket."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path

from knockem_dagster.errors import StoreError

# The directory store itself hides names that end like this: they are objects being written.
UNFINISHED = re.compile(r"#\d+$")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # the last are bytes of a file's name that are no UTF-8
_MAX_NAME_BYTES = 240  # file systems allow 255, and an object being written needs a few more than its name
_MAX_KEY_BYTES = 900  # S3 allows 1024, the store's own prefix included


def check_key(key: str) -> None:
    """Raise StoreError for what is no key."""
    names = key.split("/")
    if not all(names) or any(name in {".", ".."} for name in names):
        raise StoreError(f"{key!r} is not an object key: write a relative path without empty, '.' or '..' parts")
    if _UNPRINTABLE.search(key) or any(UNFINISHED.search(name) for name in names):
        raise StoreError(f"{key!r} is not an object key: leave out control characters and '#' before final digits")
    longest = max(len(name.encode(errors="replace")) for name in names)
    if longest > _MAX_NAME_BYTES or len(key.encode(errors="replace")) > _MAX_KEY_BYTES:
        raise StoreError(f"{key[:60]!r}... is too long for an object key: at most {_MAX_NAME_BYTES} bytes between "
                         f"slashes and {_MAX_KEY_BYTES} in all")  # fmt: skip


def files_below(root: Path, prefix: str) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield the keys of the files below a folder of `root`, with what is known of each.

    None is known of what can be no object: its name is no key's, or it is a link that leads back to where it is. What
    is below a folder of such a name is not looked at. Links are followed; those that lead nowhere, and objects being
    written, are left out. Raises OSError for what may not be read.
    """
    key = prefix.removesuffix("/")
    folder = root / key
    above: set[tuple[int, int]] = set()
    with suppress(FileNotFoundError, NotADirectoryError):
        above = {_identity(each.stat()) for each in (folder, *folder.parents) if each.is_relative_to(root)}
    yield from _files_in(folder, key, above)


def _files_in(folder: Path, key: str, above: Set[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result | None]]:
    paths: list[Path] = []
    with suppress(FileNotFoundError, NotADirectoryError):  # there is none, or no longer
        paths = list(folder.iterdir())
    for path in paths:
        yield from _files_at(path, f"{key}/{path.name}" if key else path.name, above)


def _files_at(path: Path, key: str, above: Set[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result | None]]:
    try:
        known = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        yield key, None
        return
    is_folder = stat.S_ISDIR(known.st_mode)
    if not is_folder and (UNFINISHED.search(path.name) or not stat.S_ISREG(known.st_mode)):
        return
    if not _is_key(key) or (is_folder and _identity(known) in above):
        yield key, None
    elif is_folder:
        yield from _files_in(path, key, {*above, _identity(known)})
    else:
        yield key, known


def _identity(known: os.stat_result) -> tuple[int, int]:
    return known.st_dev, known.st_ino


def _is_key(key: str) -> bool:
    try:
        check_key(key)
    except StoreError:
        return False
    return True
