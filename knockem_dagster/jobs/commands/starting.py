"""Starting one command: where its program is, what it inherits, and why it could not be started.

Part of the spawner: no import here may make that larger (see spawner.py).
"""

from __future__ import annotations

import errno
import os

SIGKILL, SIGSTOP, FIRST_REALTIME = 9, 19, 32
DEFAULT_SIGNALS = [number for number in range(1, FIRST_REALTIME) if number not in (SIGKILL, SIGSTOP)]
"""What is ignored is inherited, and Python ignores SIGPIPE, a shell's background SIGINT: not the command's concern."""

NOT_FOUND, NOT_EXECUTABLE = 127, 126

UNUSABLE = {errno.EACCES, errno.ENOEXEC, errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.E2BIG, errno.ENAMETOOLONG}
"""What the kernel says of a command that it will never start, however often it is asked."""


class Refused(Exception):
    """The command cannot be started; arguments: exit code (None: it is not the command's fault) and why."""


def start(arguments: list[str], environment: dict[str, str], *, folder: str, output: int) -> int:
    """Start a command in a session of its own and return its process id; it writes to the descriptor `output`.

    Changes to the folder, which a started process cannot be told to do. Raises Refused.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise Refused(NOT_EXECUTABLE, f"its folder {folder}: {error.strerror}") from None
    program = find_program(arguments[0], environment.get("PATH", ""))
    try:
        return os.posix_spawn(
            program,
            arguments,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
            setsid=True,
            setsigmask=(),
            setsigdef=DEFAULT_SIGNALS,
        )
    except ValueError as error:  # a NUL in an argument, an = in a variable's name
        raise Refused(NOT_EXECUTABLE, f"{program} cannot be executed: {error}") from None
    except OSError as error:
        reason = f"{program} could not be started: {error.strerror}"
        if error.errno not in UNUSABLE:
            raise Refused(None, reason) from None
        if error.errno == errno.ENOENT and not os.path.exists(program):  # noqa: PTH110
            raise Refused(NOT_FOUND, f"{program}: not found") from None
        if error.errno in (errno.ENOEXEC, errno.ENOENT):
            reason += "; check its first line, `#!...`"
        raise Refused(NOT_EXECUTABLE, reason) from None


def find_program(name: str, path: str) -> str:
    """Return what to execute: the name itself if it has a slash, else the first such program on the path."""
    if "/" in name:
        return name
    for folder in path.split(":"):
        program = f"{folder or '.'}/{name}"
        if os.access(program, os.X_OK) and not os.path.isdir(program):  # noqa: PTH112
            return program
    raise Refused(NOT_FOUND, f"{name}: not found on PATH ({path})")
