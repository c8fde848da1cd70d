"""`up`: queue server, HTTP API, Dagster UI and its daemon, until the user ends them; `api`: the API alone."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import typer

from knockem_dagster.accounts.tokens import first_administrator
from knockem_dagster.cli.addresses import HOST, Address
from knockem_dagster.cli.queue_service import queue_services
from knockem_dagster.cli.service_logs import log_folder
from knockem_dagster.cli.supervision import Service, Supervisor, ended_by_signals
from knockem_dagster.cli.terminal import answer_json, aside
from knockem_dagster.cli.up_lock import only_one
from knockem_dagster.cli.wording import counted
from knockem_dagster.containers.processes import ProcessRuntime
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State
from knockem_dagster.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]


def up(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the UI.  [default: KNOCKEM_PORT, 3000]")
    ] = None,
    api_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the HTTP API.  [default: KNOCKEM_API_PORT, 3001]")
    ] = None,
) -> None:
    """Show everything on pages and in the Dagster UI, and work on submissions, until Ctrl-C."""
    from knockem_dagster import definitions  # here, because importing Dagster takes more than a second

    settings = load_settings()
    home = definitions.prepare_dagster_home(settings)
    with only_one(settings) as note:
        asyncio.run(ProcessRuntime(()).remove_leftovers())
        addresses = _Addresses(
            settings,
            Address("the Dagster UI", port or settings.port, "/server_info"),
            Address("Knockem", api_port or settings.api_port, "/openapi.json"),
        )
        addresses.find_ports()
        logs = log_folder(settings)
        services = [
            *queue_services(settings, logs / "queue.log"),
            Service("webserver", addresses.webserver, logs / "webserver.log"),
            Service("api", addresses.http_api, logs / "api.log"),
            Service("daemon", lambda: _dagster("dagster._daemon", "run"), logs / "daemon.log"),
        ]
        _say(_unfinished(settings))
        with definitions.dagster_instance(settings):
            pass  # its files are made here, once: daemon and webserver would both try
        _say("Starting the Dagster UI and its daemon; this takes a quarter of a minute or more. Ctrl-C ends them.")
        with ended_by_signals() as over:
            environment = _environment(settings, home, addresses.ui.url)
            supervisor = Supervisor(services, environment, ROOT, _say)
            supervisor.run(over, lambda: addresses.tell_what_answers(note))
        _say("Everything has ended. Unfinished submissions go on with the next `./knockem up`.")


def api(
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.  [default: KNOCKEM_API_HOST, 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port; 0: any.  [default: KNOCKEM_API_PORT, 3001]")
    ] = None,
    specification: Annotated[
        bool, typer.Option("--specification", help="Print the OpenAPI document, and answer nothing.")
    ] = False,
) -> None:
    """Answer the HTTP API alone, until Ctrl-C; `up` does so beside the Dagster UI."""
    from knockem_dagster.api.http.app import build_app  # here, because importing it takes seconds
    from knockem_dagster.api.http.serving import serve

    settings = load_settings()
    platform = Platform(settings)
    if specification:
        answer_json(build_app(platform).openapi())
    else:
        serve(
            platform, host=settings.api_host if host is None else host, port=settings.api_port if port is None else port
        )


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


def _first_token(settings: Settings) -> str:
    """Make a token for an administrator if nobody has one; return it, or nothing."""
    platform = Platform(settings)
    try:
        return first_administrator(platform.records) or ""
    finally:
        platform.close()


@dataclass(slots=True)
class _Addresses:
    """Where the UI, and the API with its pages, are."""

    settings: Settings
    ui: Address
    api: Address

    def find_ports(self) -> None:
        """Go to free ports."""
        self.ui.find_port(_say)
        self.api.find_port(_say, but=[self.ui.port])

    def webserver(self) -> Sequence[str]:
        """Return the command of the webserver, on a port that is free now."""
        self.ui.find_port(_say)
        self.ui.told = False
        return _dagster("dagster_webserver", "--host", HOST, "--port", str(self.ui.port))

    def http_api(self) -> Sequence[str]:
        """Return the command of the API, on a port that is free now."""
        self.api.find_port(_say, but=[self.ui.port])
        self.api.told = False
        return [sys.executable, "-P", "-m", "knockem_dagster", "api", "--port", str(self.api.port)]

    def tell_what_answers(self, note: IO[str]) -> None:
        """Print where the pages are once they answer there, and note it for a second `up`; say when the UI answers."""
        if self.api.has_begun_to_answer():
            typer.echo(f"Knockem is at {self.api.url}")
            if token := _first_token(self.settings):
                typer.echo(f"The first administrator logs in at {self.api.url}/#{token}")
                typer.echo("The token after the # is told only now; `./knockem token add` makes more.")
            note.seek(0)
            note.truncate()
            note.write(self.api.url)
            note.flush()
        if self.ui.has_begun_to_answer():
            typer.echo("The Dagster UI, which is linked there, answers.")


def _dagster(module: str, *arguments: str) -> Sequence[str]:
    return [sys.executable, "-P", "-m", module, *arguments, "--workspace", str(ROOT / "workspace.yaml")]


def _environment(settings: Settings, dagster_home: Path, ui_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DAGSTER_HOME": str(dagster_home),
        "KNOCKEM_HOME": str(settings.home),
        "KNOCKEM_UI_URL": settings.ui_url or ui_url,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def _say(line: str) -> None:
    aside().print(line, markup=False, soft_wrap=True)
