"""`up`: the queue server, the Dagster UI and its daemon, sensors on, until the user ends them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import typer

from knockem_dagster.cli.queue_service import queue_services
from knockem_dagster.cli.service_logs import log_folder
from knockem_dagster.cli.supervision import Service, Supervisor, ended_by_signals
from knockem_dagster.cli.terminal import aside
from knockem_dagster.cli.up_lock import only_one
from knockem_dagster.cli.wording import counted
from knockem_dagster.containers.processes import ProcessRuntime
from knockem_dagster.errors import KnockemError
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State
from knockem_dagster.settings import Settings, load_settings

ADDRESS = "127.0.0.1"
"""Whoever reaches the UI can start runs: it is for this machine only."""
PORTS_TRIED = 100
ROOT = Path(__file__).parents[2]


def up(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the UI.  [default: KNOCKEM_PORT, 3000]")
    ] = None,
) -> None:
    """Show everything in the Dagster UI and work on submissions, until Ctrl-C."""
    from knockem_dagster import definitions  # here, because importing Dagster takes more than a second

    settings = load_settings()
    home = definitions.prepare_dagster_home(settings)
    with only_one(settings) as note:
        asyncio.run(ProcessRuntime(()).remove_leftovers())
        page = _Page(port or settings.port)
        page.find_port()
        logs = log_folder(settings)
        services = [
            *queue_services(settings, logs / "queue.log"),
            Service("webserver", page.command, logs / "webserver.log"),
            Service("daemon", lambda: _dagster("dagster._daemon", "run"), logs / "daemon.log"),
        ]
        _say(_unfinished(settings))
        with definitions.dagster_instance(settings):
            pass  # its files are made here, once: daemon and webserver would both try
        _say("Starting the Dagster UI and its daemon; this takes a quarter of a minute or more. Ctrl-C ends them.")
        with ended_by_signals() as over:
            supervisor = Supervisor(services, _environment(settings, home), ROOT, _say)
            supervisor.run(over, lambda: page.tell_when_it_answers(note))
        _say("Everything has ended. Unfinished submissions go on with the next `./knockem up`.")


def _unfinished(settings: Settings) -> str:
    """Return what there is to do."""
    going = {"state": {"$in": [State.ACCEPTED.value, State.RUNNING.value]}}
    platform = Platform(settings)
    try:
        number = platform.records.documents.count(platform.records.submissions.name, going)
    finally:
        platform.close()
    if not number:
        return "No submission is waiting; new ones are taken up as they come."
    return f"{counted(number, 'unfinished submission')}: taken up as soon as the daemon runs, within about a minute."


@dataclass(slots=True)
class _Page:
    """The UI's address: the wanted port, or the next that is free."""

    port: int
    told: bool = False

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}"

    def find_port(self) -> None:
        """Go to the next free port. Raises KnockemError when there is none nearby."""
        wanted = self.port
        for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
            if _is_free(port):
                self.port = port
                if port != wanted:
                    _say(f"Port {wanted} is taken; the UI is on port {port}.")
                return
        raise KnockemError(f"No port from {wanted} on is free; name another with --port.")

    def command(self) -> Sequence[str]:
        """Return the command of the webserver, on a port that is free now."""
        self.find_port()
        self.told = False
        return _dagster("dagster_webserver", "--host", ADDRESS, "--port", str(self.port))

    def tell_when_it_answers(self, note: IO[str]) -> None:
        """Print the address once the UI answers there, and note it for a second `up`."""
        if self.told:
            return
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=1):
                self.told = True
        except (urllib.error.URLError, OSError):
            return
        typer.echo(f"The Dagster UI is at {self.url}")
        note.seek(0)
        note.truncate()
        note.write(self.url)
        note.flush()


def _dagster(module: str, *arguments: str) -> Sequence[str]:
    return [sys.executable, "-P", "-m", module, *arguments, "--workspace", str(ROOT / "workspace.yaml")]


def _environment(settings: Settings, dagster_home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DAGSTER_HOME": str(dagster_home),
        "KNOCKEM_HOME": str(settings.home),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def _say(line: str) -> None:
    aside().print(line, markup=False, soft_wrap=True)
