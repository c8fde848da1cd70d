"""The launcher's first run: an environment with exactly what requirements.lock lists.

Runs before anything is installed, as a script in whatever Python the launcher found: the standard library only, and
nothing of ours. `python installation.py FOLDER LOCK COMMAND...` installs, then becomes COMMAND.

An environment is a folder with two files of ours. `knockem` is made first, says where the folder is, and is locked by
whoever installs: the lock dies with its holder, so two first runs do not meet. `requirements.lock` is a copy of what
was installed and is made last: without it, or with another one, the environment is built anew.
"""

from __future__ import annotations

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


class InstallationError(Exception):
    """The environment cannot be made; the message says what to do."""


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
    """Install by uv or pip; the installer inherits the lock on `mark`, so that it is held as long as it writes."""
    name, command = _installer(folder, lock)
    log = folder / "install.log"
    what = f"installing the packages of {lock.name} into {folder} with {name} (first run only)"
    _tell(what if sys.stderr.isatty() else f"{what}\n")
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=lock.parent,  # uv reads the configuration of the current project, and the caller's is not ours
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(mark.fileno(),),
            process_group=0,
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    if sys.stderr.isatty():
                        _tell(f"\r{what}: {time.monotonic() - started:.0f} s")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            if sys.stderr.isatty():
                _tell("\n")
    if code != 0:
        last = "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-12:])
        raise InstallationError(
            f"{name} could not install the packages (exit {code}):\n{last}\n"
            "This needs a network, or an index of packages named in the configuration of uv or pip; behind a proxy set "
            f"HTTPS_PROXY. Then run the same command again. Everything {name} said is in {log}"
        )


def _installer(folder: Path, lock: Path) -> tuple[str, list[str]]:
    """Whichever of uv, the pip that comes with Python, and an installed pip is there, and its command."""
    python = str(folder / "bin/python")
    # Everything needed is listed with its hash: nothing is resolved, built or looked for beyond the list.
    wanted = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(lock)]
    uv = shutil.which("uv")
    if uv is not None and subprocess.run([uv, "--version"], capture_output=True, check=False).returncode == 0:
        return "uv", [uv, "pip", "install", "--python", python, *wanted]
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-warn-script-location", "--no-compile"]
    if importlib.util.find_spec("ensurepip") is not None:
        made = subprocess.run([python, "-m", "ensurepip"], capture_output=True, check=False)
        if made.returncode != 0:
            raise InstallationError(f"{sys.executable} -m ensurepip failed:\n{made.stderr.decode(errors='replace')}")
        return "pip", [python, "-m", "pip", "install", *options, *wanted]
    if importlib.util.find_spec("pip") is not None:
        return "pip", [sys.executable, "-m", "pip", "--python", python, "install", *options, *wanted]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise InstallationError(
        f"{sys.executable} has no pip. On Debian and Ubuntu: apt install python{version}-venv (as root). "
        "Elsewhere: install pip for this Python, or uv. Then run the same command again"
    )


def _tell(text: str) -> None:
    prefix = "\rknockem: " if text.startswith("\r") else "" if text == "\n" else "knockem: "
    sys.stderr.write(prefix + text.removeprefix("\r"))
    sys.stderr.flush()


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(folder: Path, lock: Path, command: list[str]) -> NoReturn:
    """Install, then become `command`."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        install(folder, lock)
    except InstallationError as error:
        _tell(f"{error}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        _tell("interrupted; the next run starts the installation again\n")
        raise SystemExit(130) from None
    except OSError as error:
        _tell(f"cannot install into {folder}: {error}; free or permit the place, then run the same command again\n")
        raise SystemExit(1) from None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
