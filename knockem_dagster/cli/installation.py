"""The launcher's first run: an environment with exactly what requirements.lock lists.

Runs before anything is installed, as a script in whatever Python the launcher found: the standard library only, and
nothing of ours. `python installation.py FOLDER LOCK COMMAND...` installs, then becomes COMMAND.

An environment is a folder with two files of ours. `knockem` is made first, says where the folder is, and is locked by
whoever installs: the lock dies with its holder, so two first runs do not meet. `requirements.lock` is a copy of what
was installed and is made last: without it, or with another one, the environment is built anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import IO, NoReturn

MARK = "knockem"
INSTALLED = "requirements.lock"
LOG = "install.log"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InstallationError(Exception):
    """The environment cannot be made; the message says what to do."""


class Interrupted(BaseException):
    """A signal asked us to end; not an Exception, so that nothing mistakes it for a failure."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def is_installed(folder: Path, wanted: bytes) -> bool:
    """Whether `folder` is a finished environment for the lock `wanted`, in the place it was made for."""
    try:
        return (
            os.access(folder / "bin/python", os.X_OK)
            and (folder / INSTALLED).read_bytes() == wanted
            and (folder / MARK).read_text().rstrip("\n") == str(folder)
        )
    except (FileNotFoundError, NotADirectoryError):
        return False


def install(folder: Path, lock: Path) -> None:
    """Make the environment `folder` from the file `lock`; several callers at once wait for the first.

    Raises:
        InstallationError: the folder is somebody else's, pip is missing, or the packages could not be fetched.
    """
    wanted = lock.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "pyvenv.cfg").exists() and not (folder / MARK).exists():
        raise InstallationError(f"{folder} was made by something else; move it away or delete it, then run this again")
    with (folder / MARK).open("a") as mark:
        _lock_or_wait(mark, folder)
        if is_installed(folder, wanted):
            return
        _empty(folder)
        mark.truncate(0)
        mark.write(f"{folder}\n")
        mark.flush()
        venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
        _install_packages(folder, lock, mark)
        unfinished = folder / f"{INSTALLED}.unfinished"
        unfinished.write_bytes(wanted)
        unfinished.replace(folder / INSTALLED)


def _lock_or_wait(mark: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _tell(f"waiting for another installation into {folder}\n")
        fcntl.flock(mark, fcntl.LOCK_EX)


def _empty(folder: Path) -> None:
    (folder / INSTALLED).unlink(missing_ok=True)
    for entry in folder.iterdir():
        if entry.name == MARK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _install_packages(folder: Path, lock: Path, mark: IO[str]) -> None:
    name, command = _installer(folder, lock, mark)
    code = _run(
        command,
        folder=folder,
        mark=mark,
        what=f"installing the packages of {lock.name} into {folder} with {name} (first run only)",
    )
    if code != 0:
        raise InstallationError(
            f"{name} could not install the packages (exit {code}):\n{_last_lines(folder)}\n"
            "This needs a network, or an index of packages named in the configuration of uv or pip; behind a proxy set "
            f"HTTPS_PROXY. Then run the same command again. Everything {name} said is in {folder / LOG}"
        )


def _installer(folder: Path, lock: Path, mark: IO[str]) -> tuple[str, list[str]]:
    """Whichever of uv, the pip that comes with Python, and an installed pip is there, and its command."""
    python = str(folder / "bin/python")
    # Everything needed is listed with its hash: nothing is resolved, built or looked for beyond the list.
    wanted = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(lock)]
    uv = shutil.which("uv")
    if uv is not None and _run([uv, "--version"], folder=folder, mark=mark) == 0:
        return "uv", [uv, "pip", "install", "--python", python, *wanted]
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-warn-script-location", "--no-compile"]
    if importlib.util.find_spec("ensurepip") is not None:
        if _run([python, "-m", "ensurepip"], folder=folder, mark=mark) != 0:
            raise InstallationError(f"{sys.executable} -m ensurepip failed:\n{_last_lines(folder)}")
        return "pip", [python, "-m", "pip", "install", *options, *wanted]
    if importlib.util.find_spec("pip") is not None:
        return "pip", [sys.executable, "-m", "pip", "--python", python, "install", *options, *wanted]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise InstallationError(
        f"{sys.executable} has no pip. On Debian and Ubuntu: apt install python{version}-venv (as root). "
        "Elsewhere: install pip for this Python, or uv. Then run the same command again"
    )


def _run(command: list[str], *, folder: Path, mark: IO[str], what: str = "") -> int:
    """Run `command` with its output in the log, telling people `what` goes on, and return its exit code.

    The command inherits the lock on `mark`: should we be killed, it is held as long as the command still writes.
    """
    received: list[int] = []
    # An exception out of a signal handler can leave subprocess with a lock held: here signals are only noted.
    before = {
        number: signal.signal(number, lambda number, _frame: received.append(number)) for number in _listened_to()
    }
    at_terminal = bool(what) and sys.stderr.isatty()
    if what:
        _tell(f"{what}\n")
    started = time.monotonic()
    try:
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=folder.parent,  # not the caller's, whose project may configure uv
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(mark.fileno(),),
                process_group=0,
            )
        while process.poll() is None:
            if received:
                os.killpg(process.pid, signal.SIGTERM)
            elif at_terminal:
                _tell(f"{time.monotonic() - started:.0f} s\r")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.25)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if at_terminal:
            sys.stderr.write("\n")
    if received:
        raise Interrupted(received[0])
    return process.returncode


def _listened_to() -> list[signal.Signals]:
    """The signals that may end us: not those our caller ignores, as nohup does."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def _last_lines(folder: Path) -> str:
    lines = (folder / LOG).read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-12:])


def _tell(text: str) -> None:
    sys.stderr.write(f"knockem: {text}")
    sys.stderr.flush()


def _interrupt(number: int, _frame: object) -> NoReturn:
    raise Interrupted(number)


def main(folder: Path, lock: Path, command: list[str]) -> NoReturn:
    """Install, then become `command`."""
    for number in _listened_to():
        signal.signal(number, _interrupt)
    try:
        install(folder, lock)
    except InstallationError as error:
        _tell(f"{error}\n")
        raise SystemExit(1) from None
    except Interrupted as interrupted:
        _tell("interrupted; the next run starts the installation again\n")
        raise SystemExit(128 + interrupted.number) from None
    except OSError as error:
        _tell(f"cannot install into {folder}: {error}; free or permit the place, then run the same command again\n")
        raise SystemExit(1) from None
    os.execv(command[0], command)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
