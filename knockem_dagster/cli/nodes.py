"""`nodes preview|list|retry`: the nodes that are acquired of schedulers, and what would be asked for."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic.alias_generators import to_camel
from rich.markup import escape
from rich.table import Table

from knockem_dagster.cli.terminal import AsJson, answer_json, for_people, open_platform, short
from knockem_dagster.cli.wording import counted
from knockem_dagster.errors import KnockemError, NotFound
from knockem_dagster.jobs.opening import require_queue
from knockem_dagster.nodes.acquiring import order_of
from knockem_dagster.nodes.node_records import dismiss_failures
from knockem_dagster.nodes.opening import node_pools_file, open_pools
from knockem_dagster.nodes.pool_states import PoolState
from knockem_dagster.nodes.tending import Preview, preview_nodes, states_of
from knockem_dagster.platform import Platform
from knockem_dagster.records.nodes import ScheduledNodeRecord

NODES_SHOWN = 20
_UNTOLD = "(the worker's token)"

app = typer.Typer(no_args_is_help=True, help="Nodes of SLURM, Kubernetes, AWS Batch and Docker Compose.")


@app.command()
def preview(as_json: AsJson = False) -> None:
    """Show how many nodes the ready work would fill now, and how one would be asked for; nothing is asked for."""
    with open_platform() as platform:
        require_queue(platform)
        found = asyncio.run(preview_nodes(platform))
        if found is None:
            raise _no_pools(platform)
    previews, refused = found
    if as_json:
        answer_json([*map(_preview_for_programs, previews), *map(_refused_for_programs, refused)])
        return
    console = for_people()
    for each in previews:
        state = each.state
        console.print(f"{state.name} ({state.scheduler}): {_intention(each)}", markup=False, soft_wrap=True)
        for owner, why in state.left_out.items():
            console.print(f"Nothing would be asked for {owner}: {why}", markup=False, soft_wrap=True)
        console.print(_call(each), markup=False, soft_wrap=True, style="dim")
        console.print()
    for state in refused:
        told = f"{state.name} ({state.scheduler}) cannot be used: {state.hindrance}"
        console.print(told, markup=False, soft_wrap=True)


@app.command("list")
def list_nodes(
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, help="Nodes shown of each pool, the newest first.")] = NODES_SHOWN,
) -> None:
    """List the pools and their nodes: how far each is, and why it waits or how it ended."""
    with open_platform() as platform:
        found = open_pools(platform)
        if found is None:
            raise _no_pools(platform)
        states = asyncio.run(states_of(platform, found))
        nodes = {state.name: _nodes_of(platform, state.name, limit) for state in states}
    if as_json:
        listed = {name: [_for_programs(node) for node in those] for name, those in nodes.items()}
        answer_json([{**_state_for_programs(state), "nodes": listed[state.name]} for state in states])
        return
    console = for_people()
    for state in states:
        hours = f"{state.hours:,.1f} of {state.max_node_hours:,.1f} node-hours used or promised"
        there = f"{state.running} of {state.max_nodes:,} nodes there, {state.pending} wait"
        console.print(f"{state.name} ({state.scheduler}): {there}; {hours}", markup=False, soft_wrap=True)
        for obstacle in state.obstacles:
            console.print(f"  {_sentence(obstacle)}", markup=False, soft_wrap=True)
        if nodes[state.name]:
            console.print(_table(nodes[state.name]))


@app.command()
def retry(pool: Annotated[str, typer.Argument(metavar="POOL", help="A pool's name.")]) -> None:
    """Ask for nodes of a pool again, after its nodes failed before they could work and the cause was removed."""
    with open_platform() as platform:
        number = dismiss_failures(platform.records, pool)
    if not number:
        raise NotFound(f"No failure of a pool {pool!r} stands; `./knockem nodes list` shows the pools.")
    for_people().print(f"{counted(number, 'failure')} dismissed: nodes of {pool} are asked for again.", markup=False)


def _no_pools(platform: Platform) -> KnockemError:
    path = node_pools_file(platform.settings)
    return KnockemError(f"There are no node pools: {path} would name them. docs/nodes.md tells how.")


def _nodes_of(platform: Platform, pool: str, limit: int) -> list[ScheduledNodeRecord]:
    return list(platform.records.scheduled_nodes.find({"pool": pool}, sort=[("datetime", -1)], limit=limit))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _intention(each: Preview) -> str:
    if each.state.hindrance:
        return f"nothing would be asked for: {each.state.hindrance}"
    if each.demand.more:
        return f"{counted(each.demand.more, 'node')} would be asked for, each like this:"
    if not each.demand.permitted:
        return "its limits permit no more; a node is asked for like this:"
    return "no work is ready that would fill one; it would be asked for like this:"


def _call(each: Preview) -> str:
    return each.each.scheduler.preview(order_of(each.each.pool, "ID", url=each.url, token=_UNTOLD))


def _preview_for_programs(each: Preview) -> dict[str, Any]:
    return {
        "name": each.state.name,
        "scheduler": each.state.scheduler,
        "used": each.demand.used,
        "more": each.demand.more,
        "hindrance": each.state.hindrance,
        "leftOut": each.state.left_out,
        "request": _call(each),
    }


def _refused_for_programs(state: PoolState) -> dict[str, Any]:
    told = {"name": state.name, "scheduler": state.scheduler, "hindrance": state.hindrance}
    return {**told, "used": 0, "more": 0, "leftOut": {}, "request": None}


def _state_for_programs(state: PoolState) -> dict[str, Any]:
    counts = {"pending": state.pending, "running": state.running, "live": len(state.live)}
    return {to_camel(name): value for name, value in {**asdict(state), **counts}.items()}


def _for_programs(node: ScheduledNodeRecord) -> dict[str, Any]:
    hidden = {"token_id", "configuration", "revision_knockem"}
    return node.model_dump(mode="json", by_alias=True, exclude=hidden)


def _table(nodes: list[ScheduledNodeRecord]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("  node", "there", "state", "asked for", "started", "ended"):
        table.add_column(name, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for node in nodes:
        times = (node.datetime, node.started, node.ended)
        table.add_row(
            f"  {short(node.id)}",
            escape(node.external_id or ""),
            node.state.value,
            *("" if time is None else time[:19].replace("T", " ") for time in times),
            escape(node.reason),
        )
    return table
