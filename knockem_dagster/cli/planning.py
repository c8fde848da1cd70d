"""`plan`: what a study will take, before it is submitted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from knockem_dagster.assay_runs.intake import examine
from knockem_dagster.assay_runs.submission_file import read_submission_file
from knockem_dagster.cli.terminal import AsJson, answer_json, for_people, open_platform
from knockem_dagster.cli.wording import clock, counted
from knockem_dagster.errors import KnockemError
from knockem_dagster.platform import Platform

if TYPE_CHECKING:
    from knockem_dagster.assay_runs.planning import Plan


def plan(
    file: Annotated[Path, typer.Argument(help="The submission: a YAML or JSON file.")], as_json: AsJson = False
) -> None:
    """Say how many competitions and hours a study will take, storing nothing."""
    with open_platform() as platform:
        made = asyncio.run(_plan(platform, file))
    if as_json:
        answer_json(_fields(made))
        return
    table = Table(title=f"{file}: {counted(made.num_sites, 'site')}", title_justify="left")
    for name in ("functional sites", "competitions", "time"):
        table.add_column(name, justify="right")
    for need in made.needs:
        low, high = (clock(number / made.rate) for number in (need.low, need.high))
        table.add_row(f"{need.share:.0%}", f"{need.low:,} to {need.high:,}", f"{low} to {high}" if low != high else low)
    console = for_people()
    console.print(table)
    console.print(
        f"At {made.rate:,.3g} competitions a second, from {made.source}. "
        "A coarser `resolution` takes fewer competitions; a `budget` limits them.",
        soft_wrap=True,
    )
    if made.left_out:
        named = ", ".join(each.value for each in made.left_out)
        console.print(f"Not planned, and on top of that: {named}.", soft_wrap=True)


async def _plan(platform: Platform, file: Path) -> Plan:
    from knockem_dagster.assay_runs.planning import make_plan  # here: the assays take half a second to import

    try:
        data = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise KnockemError(f"The submission file {file} cannot be read: {error.strerror}.") from error
    accepted = await examine(platform, read_submission_file(data, folder=file.parent), may_exist=True)
    return await make_plan(platform, accepted)


def _fields(plan: Plan) -> dict[str, Any]:
    return {
        "numSites": plan.num_sites,
        "competitionsPerSecond": plan.rate,
        "rateFrom": plan.source,
        "leftOut": [each.value for each in plan.left_out],
        "needs": [
            {
                "functionalShare": need.share,
                "competitions": [need.low, need.high],
                "seconds": [need.low / plan.rate, need.high / plan.rate],
            }
            for need in plan.needs
        ],
    }
