"""A SLURM cluster of one node on this machine for tests, without systemd, as whichever user runs them.

Nothing outside its folder is touched. Memory limits are not enforced in it.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
START_SECONDS = 60.0
CPUS = 4
MEMORY_MIB = 8192
PARTITION = "short"


def needs_slurm(*more: str) -> pytest.MarkDecorator:
    """Return a mark that skips, visibly, where SLURM is not installed, or what is needed besides."""
    missing = [name for name in (*NEEDED, *more) if _program(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@contextmanager
def running_slurm(
    *, with_accounting: bool = False, min_job_age: int = 300, message_timeout: int = 10
) -> Iterator[Path]:
    """Run a cluster with one idle node, and give its configuration, which SLURM_CONF names meanwhile.

    `min_job_age`, `message_timeout`: seconds after which a job is forgotten, and within which to answer.
    """
    # Its sockets' paths must be short, which those of pytest's folders are not.
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        base.chmod(0o755)  # munge's clients of other users come in
        stack.enter_context(_munge(base))
        accounting = ["AccountingStorageType=accounting_storage/none"]
        if with_accounting:
            accounting = stack.enter_context(_accounting(base))
        configuration = _configuration(
            base, [*accounting, f"MinJobAge={min_job_age}", f"MessageTimeout={message_timeout}"]
        )
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("SLURM_CONF", str(configuration))
        for name in ("slurmctld", "slurmd"):
            stack.enter_context(_daemon(base, name, "-D", "-f", str(configuration)))
        _wait_until_idle()
        yield configuration


@contextmanager
def _munge(base: Path) -> Iterator[None]:
    folder = base / "munge"
    folder.mkdir(mode=0o755)
    key = folder / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    files = {name: folder / name for name in ("socket", "pid-file", "log-file", "seed-file")}
    options = [f"--{name}={path}" for name, path in files.items()]
    with _daemon(base, "munged", "--foreground", "--force", f"--key-file={key}", *options):
        _wait_for(files["socket"].exists, "munged makes no socket")
        yield


@contextmanager
def _accounting(base: Path) -> Iterator[list[str]]:
    """Run the daemon of `sacct` over a database of its own, and give the lines of slurm.conf that name it."""
    data, database = base / "data", base / "database.sock"
    user, host, [port] = getpass.getuser(), socket.gethostname(), _free_ports(1)
    made = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
    subprocess.run([*made, f"--user={user}"], capture_output=True, check=True)
    options = ("--no-defaults", f"--datadir={data}", f"--socket={database}", "--skip-networking", f"--user={user}")
    with _daemon(base, "mariadbd", *options):
        _wait_for(database.exists, "the database makes no socket")
        configuration = base / "slurmdbd.conf"
        lines = {
            "DbdHost": host,
            "DbdAddr": "127.0.0.1",
            "DbdPort": port,
            "SlurmUser": user,
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={base / 'munge/socket'}",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "localhost",
            "StorageUser": "root",
            "StorageLoc": "slurm",
            "PidFile": base / "slurmdbd.pid",
            "LogFile": base / "slurmdbd.log",
        }
        configuration.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        configuration.chmod(0o600)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MYSQL_UNIX_PORT", str(database))
            patch.setenv("SLURM_CONF", str(configuration))
            with _daemon(base, "slurmdbd", "-D"):
                _wait_for(lambda: _answers(port), "slurmdbd does not listen")
                yield [
                    "AccountingStorageType=accounting_storage/slurmdbd",
                    "AccountingStorageHost=127.0.0.1",
                    f"AccountingStoragePort={port}",
                    f"AccountingStoragePass={base / 'munge/socket'}",
                ]


def _answers(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


def _configuration(base: Path, more: Sequence[str]) -> Path:
    user, host = getpass.getuser(), socket.gethostname()
    controller, node = _free_ports(2)
    for name in ("state", "spool", "log"):
        (base / name).mkdir()
    lines = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": controller,
        "SlurmdPort": node,
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={base / 'munge/socket'}",
        "StateSaveLocation": base / "state",
        "SlurmdSpoolDir": base / "spool",
        "SlurmctldPidFile": base / "slurmctld.pid",
        "SlurmdPidFile": base / "slurmd.pid",
        "SlurmctldLogFile": base / "log/slurmctld",
        "SlurmdLogFile": base / "log/slurmd",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/linux",
        "ReturnToService": 2,
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_min_interval=0,batch_sched_delay=0,bf_interval=1",
        "SlurmdParameters": "config_overrides",
        "KillWait": 5,
        "MpiDefault": "none",
        "NodeName": f"{host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory={MEMORY_MIB} State=UNKNOWN",
        "PartitionName": f"{PARTITION} Nodes={host} Default=YES MaxTime=INFINITE State=UP",
    }
    path = base / "slurm.conf"
    path.write_text("\n".join([*(f"{name}={value}" for name, value in lines.items()), *more, ""]))
    return path


@contextmanager
def _daemon(base: Path, name: str, *arguments: str) -> Iterator[None]:
    program = _program(name)
    assert program is not None
    with (base / f"{name}.out").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_idle() -> None:
    def is_idle() -> bool:
        told = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
        return told.stdout.strip() == "idle"

    _wait_for(is_idle, "the node does not become idle")


def _wait_for(condition: object, what: str) -> None:
    assert callable(condition)
    until = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)  # no daemon tells when it is there


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in taken]


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
