"""`test` and `bench`: for those who work on the platform itself."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from knockem_dagster.cli.terminal import USAGE, AsJson, aside, for_people
from knockem_dagster.errors import KnockemError

ROOT = Path(__file__).parents[2]
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Context settings of a command that passes its arguments on, --help included."""
_FOR_TESTS = "KNOCKEM_TEST_"


def test(context: typer.Context) -> None:
    """Run the tests; what follows is passed to pytest."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KNOCKEM_") or name.startswith(_FOR_TESTS)
    }
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *context.args],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    raise typer.Exit(ended.returncode if ended.returncode >= 0 else 128 - ended.returncode)


def bench(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Which benchmark; left out, they are listed.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.001, help="Share of the full number of repetitions.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same random numbers.")] = 1,
    as_json: AsJson = False,
    write: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Keep the result in this file, group by group; the same command again goes on from there.",
        ),
    ] = None,
) -> None:
    """Run a benchmark: measurements beside their references."""
    benchmarks = _benchmarks()
    if name is None:
        for each in benchmarks:
            summary = (_load(each).__doc__ or "").strip().partition("\n")[0]
            for_people().print(f"{each:<16} {summary}", markup=False, soft_wrap=True)
        return
    if name not in benchmarks:
        aside().print(f"There is no benchmark {name!r}; there are {', '.join(benchmarks)}.", markup=False)
        raise typer.Exit(USAGE)
    benchmark = _load(name)
    presentation = getattr(benchmark, "presentation", None) or _load("measurement")
    if write is None:
        measured = benchmark.run(scale, seed)
    elif hasattr(benchmark, "groups"):
        measured = _load("results").measure(name, benchmark.groups, scale=scale, seed=seed, path=write)
    else:
        aside().print(f"The benchmark {name} does not keep its result: leave out --write.", markup=False)
        raise typer.Exit(USAGE)
    if as_json:
        typer.echo(presentation.as_json(measured))
    else:
        presentation.print_table(measured, title=f"bench {name}", console=for_people())


def _benchmarks() -> list[str]:
    """Return the names of the modules under benchmarks/ that define `run`."""
    folder = ROOT / "benchmarks"
    if not folder.is_dir():
        raise KnockemError(f"There is no folder {folder}; benchmarks run in a checkout only.")
    return sorted(path.stem for path in folder.glob("*.py") if "\ndef run(" in path.read_text(encoding="utf-8"))


def _load(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")
