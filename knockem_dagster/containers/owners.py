"""Who started a process, container or temporary folder, and whether that one still lives.

Everything the runtimes start carries its owner's name, so that what a crash left behind can be told
from what a living process still uses.
"""

from __future__ import annotations

import functools
import os
import platform
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

SEPARATOR = "~"
FOLDER_PREFIX = "knockem-"


@dataclass(frozen=True, slots=True)
class Owner:
    """One run of one process: a process number alone is used again, here and on other machines.

    `started` is in clock ticks after boot (field 22 of /proc/PID/stat).
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int

    def __str__(self) -> str:
        return SEPARATOR.join([self.host, self.boot, self.namespace, str(self.pid), str(self.started)])

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read the text form; None for anything else."""
        parts = text.split(SEPARATOR)
        if len(parts) != 5 or not (parts[3].isdecimal() and parts[4].isdecimal()):
            return None
        return cls(parts[0], parts[1], parts[2], int(parts[3]), int(parts[4]))

    @property
    def is_gone(self) -> bool:
        """Tell whether the owner has certainly ended. False where that cannot be known from here.

        Another machine's processes, or those of another process namespace, cannot be seen.
        """
        here = current_owner()
        if self.host != here.host:
            return False
        if self.boot != here.boot:
            return True
        return self.namespace == here.namespace and process_start(self.pid) != self.started


def current_owner() -> Owner:
    """Return this process as an owner."""
    return _owner_of(os.getpid())


@functools.lru_cache(maxsize=2)
def _owner_of(pid: int) -> Owner:
    started = process_start(pid)
    assert started is not None, "a running process has an entry in /proc"
    return Owner(
        host=platform.node().replace(SEPARATOR, "-"),
        boot=Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8],
        namespace=Path("/proc/self/ns/pid").readlink().name.removeprefix("pid:[").removesuffix("]"),
        pid=pid,
        started=started,
    )


def process_start(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None when it has ended (or is a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def private_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a temporary folder (mode 0700) that names its owner; remove_abandoned_folders finds it after a crash."""
    return tempfile.TemporaryDirectory(prefix=_folder_prefix(), ignore_cleanup_errors=True)


def make_private_folder() -> Path:
    """Make such a folder that its maker removes."""
    return Path(tempfile.mkdtemp(prefix=_folder_prefix()))


def _folder_prefix() -> str:
    return f"{FOLDER_PREFIX}{current_owner()}{SEPARATOR}"


def remove_abandoned_folders() -> int:
    """Remove the private folders of owners that are gone; return how many, without those that others remove."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*{SEPARATOR}*"):
        owner = Owner.parse(folder.name.removeprefix(FOLDER_PREFIX).rpartition(SEPARATOR)[0])
        if owner and owner.is_gone and _is_ours(folder) and (taken := _taken_over(folder)):
            shutil.rmtree(taken, ignore_errors=True)
            removed += 1
    return removed


def _taken_over(folder: Path) -> Path | None:
    """Return where a folder is once it bears our name, so that nobody else removes it; None where another has it."""
    ours = folder.with_name(f"{_folder_prefix()}{secrets.token_hex(8)}")
    try:
        return folder.rename(ours)
    except FileNotFoundError:
        return None


def _is_ours(folder: Path) -> bool:
    """Tell whether it is a folder of this user's that is still there: another may be removing it, too."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
