"""`check`: does an image or folder keep the container contract?"""

from __future__ import annotations

import asyncio
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.markup import escape

from knockem_dagster.assay_runs.contract_check import Check, ContractCheck, Verdict, is_usable
from knockem_dagster.cli.terminal import FAILED, USAGE, aside, for_people
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.contract_commands import COMPETE_TWO, SERVE
from knockem_dagster.containers.names import RESERVED_NAMES
from knockem_dagster.containers.runtime import ContainerSpec, Limits, Runtime
from knockem_dagster.errors import KnockemError
from knockem_dagster.platform import Platform
from knockem_dagster.settings import Settings, load_settings

_COLOURS = {Verdict.PASS: "green", Verdict.MISSING: "yellow", Verdict.FAIL: "bold red"}
_TAIL_LINES = 12


def check(
    image: Annotated[str, typer.Argument(metavar="IMAGE|FOLDER", help="An image, or a folder of executables.")],
    genome: Annotated[Path, typer.Argument(help="A file with a genome's content.")],
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="K=V", help="An entry of containerEnv; may be repeated.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one command may take.")] = 60.0,
) -> None:
    """Run each command of the container contract once, and once more with a knockout."""
    environment = _environment(env or [])
    try:
        content = genome.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KnockemError(f"The genome {genome} cannot be read as UTF-8 text: {error}") from error
    settings, reference = _settings_for(image)
    platform = Platform(settings)
    runtime = platform.runtime(platform.runtime_for(reference))
    limits = Limits(timeout_seconds=timeout)
    console = for_people()
    checks = asyncio.run(_check(runtime, reference, content, environment=environment, limits=limits))
    if not is_usable(checks):
        console.print("Correct what FAILed and check again; the contract is described in deploy/organisms/README.md.")
        raise typer.Exit(FAILED)
    _tell_next(console, checks, image=image, genome=genome, environment=environment)


async def _check(
    runtime: Runtime, reference: str, content: str, *, environment: dict[str, str], limits: Limits
) -> list[Check]:
    console = for_people()
    image = await runtime.resolve(reference)
    console.print(f"{reference} ({runtime.name}, {image.digest[:19]})", markup=False)
    variables = {"KNOCKEM_USER_EMAIL": "nobody@example.org", "KNOCKEM_RUNMODE": "testing", **environment}
    specification = ContainerSpec(image=image, environment=variables, limits=limits, submission_id="check")
    checks: list[Check] = []
    async for done in ContractCheck(Organism(runtime, specification, wild_type=content), content).run():
        checks.append(done)
        _show(console, done)
    return checks


def _show(console: Console, done: Check) -> None:
    colour = _COLOURS[done.verdict]
    lines = done.said.strip().splitlines() or [""]
    first = lines[0] if done.verdict is not Verdict.FAIL else ""
    console.print(
        f"[{colour}]{done.verdict.value:<18}[/] {done.command:<24} {escape(done.case):<36} "
        f"{1000 * done.seconds:>9,.1f} ms  {escape(first)}",
        soft_wrap=True,
    )
    if done.verdict is Verdict.FAIL:
        for line in lines[-_TAIL_LINES:]:
            console.print(f"    | {line}", markup=False, soft_wrap=True)


def _tell_next(
    console: Console, checks: list[Check], *, image: str, genome: Path, environment: Mapping[str, str]
) -> None:
    """Say how fast a competition is, and how to submit a study of this organism."""
    command = SERVE if any(c.command == SERVE and c.verdict is Verdict.PASS for c in checks) else COMPETE_TWO
    fastest = min(c.seconds for c in checks if c.command == command and c.case != "hello")
    console.print(f"\nA competition takes about {1000 * fastest:,.1f} ms by {command}.", soft_wrap=True)
    settings = load_settings()
    folder = Path(image)
    name = image
    if folder.is_dir():
        folder = folder.resolve()
        name = folder.name
        if not any(folder.is_relative_to(root.resolve()) for root in settings.organisms):
            joined = os.pathsep.join(map(str, (*settings.organisms, folder.parent)))
            console.print(
                f"To submit studies of this folder, name the folder it is in:\n  export KNOCKEM_ORGANISMS='{joined}'",
                markup=False,
                soft_wrap=True,
            )
    study = {"genome": str(genome.absolute()), "containerImage": name, "containerEnv": dict(environment)}
    study = {key: value for key, value in study.items() if value} | {"userEmail": "you@example.org"}
    console.print("Next: write this to a file, say study.yaml, and run `./knockem submit study.yaml --wait`")
    console.print(textwrap.indent(yaml.safe_dump(study, sort_keys=False), "  "), markup=False, soft_wrap=True)


def _settings_for(image: str) -> tuple[Settings, str]:
    """Return the settings and the reference for what the user named; a folder he names himself may lie anywhere."""
    settings = load_settings()
    folder = Path(image)
    if not folder.is_dir() or settings.runtime not in ("auto", "process"):
        return settings, image
    resolved = folder.resolve()
    return settings.model_copy(update={"organisms": (resolved.parent,), "runtime": "process"}), resolved.name


def _environment(entries: list[str]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for entry in entries:
        name, found, value = entry.partition("=")
        if not found or not name or name in RESERVED_NAMES:
            aside().print(
                f"--env {entry}: give NAME=VALUE; names that the container contract sets itself cannot be used.",
                markup=False,
            )
            raise typer.Exit(USAGE)
        environment[name] = value
    return environment
