"""Services are started, started again, and leave nothing running, whatever ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from knockem_dagster.cli.supervision import Service, Supervisor
from knockem_dagster.containers.marked_processes import marked_processes
from tests.services.command_line import environment_of
from tests.services.waiting import until

PARENT_AND_CHILD = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with open(sys.argv[1] + ".writing", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    os.replace(sys.argv[1] + ".writing", sys.argv[1])
    time.sleep(600)
"""


OWNER_OF_ANOTHER = """
    import os, subprocess, sys, time
    from knockem_dagster.containers.marked_processes import MARK, mark_of
    from knockem_dagster.containers.owners import current_owner
    from knockem_dagster.containers.warden import ensure_warden
    ensure_warden()
    environment = {**os.environ, MARK: mark_of(str(current_owner()), 1, "a submission")}
    child = subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)
    with open(sys.argv[1] + ".writing", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    os.replace(sys.argv[1] + ".writing", sys.argv[1])
    time.sleep(600)
"""


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service with a child in a session of its own; both write their process numbers to tmp_path/pids."""
    script = tmp_path / "service.py"
    script.write_text(textwrap.dedent(PARENT_AND_CHILD))
    command = [sys.executable, str(script), str(tmp_path / "pids")]
    return Service("service", lambda: command, tmp_path / "logs" / "service.log")


def pids_of(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split()]


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def supervise(service: Service, tmp_path: Path, on_look: Callable[[threading.Event], None]) -> list[str]:
    """Supervise in this thread until `on_look` sets the event it is given; return what was said."""
    over = threading.Event()
    said: list[str] = []
    Supervisor([service], os.environ, tmp_path, said.append).run(over, lambda: on_look(over))
    return said


def test_nothing_is_left_after_an_orderly_end(service: Service, tmp_path: Path) -> None:
    seen: list[int] = []

    def end_when_started(over: threading.Event) -> None:
        if (tmp_path / "pids").exists():
            seen.extend(pids_of(tmp_path / "pids"))
            over.set()

    supervise(service, tmp_path, end_when_started)
    assert len(seen) == 2
    assert not any(runs(pid) for pid in seen)


def test_a_service_that_dies_is_started_again_and_said_so(service: Service, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_once(over: threading.Event) -> None:
        pids = tmp_path / "pids"
        if not pids.exists():
            return
        if killed:
            over.set()
        else:
            killed.extend(pids_of(pids))
            pids.unlink()
            os.kill(killed[0], signal.SIGKILL)

    said = supervise(service, tmp_path, kill_once)
    assert len(said) == 2
    assert "The service was killed by SIGKILL; it is started again" in said[0]
    assert pids_of(tmp_path / "pids")[0] != killed[0]


def test_a_service_that_ignores_the_request_to_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knockem_dagster.cli.supervision.PATIENCE_SECONDS", 0.3)
    ignore = "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    stubborn = f"{ignore}; pathlib.Path('up').touch(); time.sleep(600)"
    service = Service("stubborn", lambda: [sys.executable, "-c", stubborn], tmp_path / "log")

    def end_when_started(over: threading.Event) -> None:
        if (tmp_path / "up").exists():
            over.set()

    supervise(service, tmp_path, end_when_started)
    assert service.process is not None
    assert service.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("whole_group", [False, True])
@pytest.mark.parametrize("program", [PARENT_AND_CHILD, OWNER_OF_ANOTHER])
def test_services_die_with_a_supervisor_that_is_killed(
    tmp_path: Path, service: Service, program: str, whole_group: bool
) -> None:
    (tmp_path / "service.py").write_text(textwrap.dedent(program))
    script = tmp_path / "supervise.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, threading
        from pathlib import Path
        from knockem_dagster.cli.supervision import Service, Supervisor
        service = Service("service", lambda: {list(service.command())!r}, Path({str(tmp_path / "log")!r}))
        supervisor = Supervisor([service], os.environ, Path({str(tmp_path)!r}), lambda line: None)
        supervisor.run(threading.Event(), lambda: None)
        """)
    )
    supervisor = subprocess.Popen([sys.executable, script], env=environment_of(tmp_path), start_new_session=True)
    until((tmp_path / "pids").exists)
    pids = pids_of(tmp_path / "pids")
    (os.killpg if whole_group else os.kill)(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    until(lambda: not any(runs(pid) for pid in pids))
    until(lambda: not any(owner.split("~")[3] == str(supervisor.pid) for _, owner, _ in marked_processes()))
    assert not any(runs(pid) for pid in pids)
