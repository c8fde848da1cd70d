"""`joblogs register|upload|list|quarantine|release|dismiss|recommend|revoke|delete`: job logs and what came of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from knockem_dagster.cli.service_logs import blot_out
from knockem_dagster.cli.terminal import (
    FAILED,
    AsJson,
    answer_json,
    aside,
    first_line,
    for_people,
    harmless,
    open_platform,
    short,
)
from knockem_dagster.cli.wording import counted, moment
from knockem_dagster.errors import KnockemError, NotFound
from knockem_dagster.joblogs.folders import reports_in
from knockem_dagster.joblogs.instances import (
    InstanceView,
    instance_called,
    local_instance,
    register,
    revoke,
    view_instances,
)
from knockem_dagster.platform import Platform
from knockem_dagster.records.joblogs import InstanceRecord, ReportRecord, ReportState

if TYPE_CHECKING:
    from knockem_dagster.joblogs.ledger import Ledger
    from knockem_dagster.joblogs.marts import Marts
    from knockem_dagster.joblogs.recommendations import Recommendation

app = typer.Typer(no_args_is_help=True, help="Job logs of instances: their reports, taken in or quarantined.")
_COLOURS = {
    ReportState.LOADED: "green",
    ReportState.QUARANTINED: "red",
    ReportState.RECEIVED: "yellow",
    ReportState.DISMISSED: "dim",
}


@app.command("upload")
def upload(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where reports are: NAME.tar.gz with NAME.json.")],
    *,
    instance: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose they are.  [default: the folder each is in]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take in all reports below a folder. What was taken in before is left as it is."""
    taken: dict[str, tuple[InstanceRecord, ReportRecord]] = {}
    faults: list[str] = []
    with open_platform() as platform:
        ledger = _ledger(platform)
        for found in reports_in(folder.absolute()):
            with _told_aside(str(found.archive), faults):
                whose = local_instance(platform.records, instance or found.instance.name)
                report = ledger.receive(whose.id, found.name, found.archive, found.read_metadata())
                taken[report.id] = (whose, report)
                if report.state is ReportState.RECEIVED:
                    taken[report.id] = (whose, ledger.read(report))
        told = {id for id, (_, report) in taken.items() if report.state is ReportState.RECEIVED}
        for whose in {whose.id: whose for whose, _ in taken.values()}.values():
            for report in ledger.unread(whose.id):  # whoever received them died, or had an earlier parser
                if report.id not in told:
                    with _told_aside(f"Report {report.name} of {whose.name}", faults):
                        taken[report.id] = (whose, ledger.read(report))
            if not ledger.unread(whose.id):
                with _told_aside(f"The tables of {whose.name}", faults):
                    _marts(platform).refresh(whose.id)
    seen = list(taken.values())
    if as_json:
        answer_json([_summary(report) for _, report in seen])
    elif seen:
        for_people().print(_reports_table(seen))
        _tell_rejects([report for _, report in seen])
        _tell_quarantine(seen)
    if faults or any(report.state is ReportState.QUARANTINED for _, report in seen):
        raise typer.Exit(FAILED)


@app.command("register")
def register_instance(
    name: Annotated[str, typer.Argument(metavar="NAME", help="How it is called; a UUID is its id, too.")],
    as_json: AsJson = False,
) -> None:
    """Let an instance upload its job logs over HTTP, with a token of its own that is told this once."""
    with open_platform() as platform:
        instance, token = register(platform.records, name)
    if as_json:
        answer_json({"id": instance.id, "name": instance.name, "token": token})
    else:
        aside().print(f"Instance {instance.name} is {instance.id}. Its token, told this once:", markup=False)
        typer.echo(token)


@app.command("revoke")
def revoke_token(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Its name, its id, or the beginning of its id.")],
) -> None:
    """End an instance's token: it uploads nothing any more. What it has sent stays."""
    with open_platform() as platform:
        found = revoke(platform.records, instance_called(platform.records, instance))
    for_people().print(f"Instance {found.name} has no token any more.", markup=False)


@app.command("delete")
def delete(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Its name, its id, or the beginning of its id.")],
    *,
    confirm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name, instead of typing it when asked.")
    ] = None,
) -> None:
    """Remove an instance: its archives, all that was read from them, and everything that names it."""
    from knockem_dagster import definitions  # here: importing Dagster takes seconds
    from knockem_dagster.joblogs.removal import plan_removal, remove_instance
    from knockem_dagster.joblogs.served import open_served

    with open_platform() as platform:
        records, objects = platform.records, platform.objects
        found = instance_called(records, instance)
        plan = plan_removal(records, objects, found)
        told = (
            f"Instance {found.name} ({found.id}) has {counted(plan.reports, 'report')}, {counted(plan.jobs, 'job')} "
            f"and {counted(plan.objects, 'object')}."
        )
        for_people().print(told, markup=False, soft_wrap=True)
        typed = typer.prompt("Its name, to remove all of this for ever", err=True) if confirm is None else confirm
        if typed != found.name:
            aside().print("That is not its name: nothing was removed.")
            raise typer.Exit(FAILED)

        def forget(id: str) -> None:
            definitions.forget_instance(platform, id)
            blot_out(platform.settings, id)

        remove_instance(records, objects, found, served=open_served(platform.settings), forget=forget)
    for_people().print(f"Instance {found.name} is removed.", markup=False)


@app.command("list")
def list_instances(as_json: AsJson = False) -> None:
    """List the instances: their reports and jobs, and how old the last good report is."""
    with open_platform() as platform:
        views = view_instances(platform.records)
    if as_json:
        answer_json([_summary_of_instance(view) for view in views])
    elif not views:
        for_people().print("No instance has sent job logs yet. `./knockem joblogs upload DIR` takes a folder in.")
    else:
        for_people().print(_instances_table(views))


@app.command("quarantine")
def quarantine(as_json: AsJson = False) -> None:
    """Tell which reports are not in use: what is wrong, in which member and line, and what their sender must do."""
    with open_platform() as platform:
        found = list(platform.records.job_log_reports.find({"state": ReportState.QUARANTINED}))
        instances = platform.records.job_log_instances.get_many([report.instance_id for report in found])
    # What came back of an instance that was removed is about to be swept.
    told = [(instances[report.instance_id], report) for report in found if report.instance_id in instances]
    if as_json:
        answer_json([_summary(report) for _, report in told])
    elif not told:
        for_people().print("No report is quarantined.")
    else:
        _tell_quarantine(sorted(told, key=lambda each: (each[0].name, each[1].name)))
        aside().print("`./knockem joblogs dismiss ID...` takes off this list what is dealt with.", markup=False)


@app.command("release")
def release(
    report: Annotated[str, typer.Argument(metavar="ID", help="A quarantined report's id, or its beginning.")],
    as_json: AsJson = False,
) -> None:
    """Read a report once more, for instance by a version that reads it rightly; it stays quarantined if it is bad."""
    with open_platform() as platform:
        reports = platform.records.job_log_reports
        found = reports.starting_with(report, what="quarantined report", listing="joblogs quarantine")
        whose = platform.records.job_log_instances.get(found.instance_id)
        now, faults = found, list[str]()
        with _told_aside(f"Report {found.name}", faults):
            now = _ledger(platform).read(found)
            _marts(platform).refresh(whose.id)
    if as_json:
        answer_json(_summary(now))
    else:
        for_people().print(harmless(f"Report {now.name} is {now.state}."), markup=False)
        _tell_quarantine([(whose, now)])
    if faults or now.state is ReportState.QUARANTINED:
        raise typer.Exit(FAILED)


@app.command("dismiss")
def dismiss(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Quarantined reports' ids, or their beginnings.")],
    as_json: AsJson = False,
) -> None:
    """Take quarantined reports off the list, also when they are sent again. What was sent is kept; release reads it."""
    with open_platform() as platform:
        reports, ledger = platform.records.job_log_reports, _ledger(platform)
        found = [reports.starting_with(id, what="quarantined report", listing="joblogs quarantine") for id in ids]
        dismissed = [ledger.dismiss(report) for report in found]
    if as_json:
        answer_json([_summary(report) for report in dismissed])
    else:
        for report in dismissed:
            told = harmless(f"Report {report.name} ({short(report.id)}) is {report.state}.")
            for_people().print(told, markup=False)


@app.command("recommend")
def recommend(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Its name, its id, or the beginning of its id.")],
    *,
    tool: Annotated[str, typer.Option(metavar="ID", help="Only of this tool.  [default: of all]")] = "",
    tpv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a fragment of tools.yml for the Total Perspective Vortex."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell which cores, memory and time an instance's tools should be given, from what their jobs used."""
    from knockem_dagster.joblogs.recommendations import recommend as recommended_by  # here: as below
    from knockem_dagster.joblogs.tpv import fragment

    with open_platform() as platform:
        whose = instance_called(platform.records, instance)
        with _marts(platform).opened([whose.id]) as opened:
            found = recommended_by(opened, tool)
    if not found:
        raise NotFound(f"No job of {tool or 'any tool'} is known of the instance {whose.name}.")
    if tpv is not None:
        tpv.write_text(fragment(found, name=whose.name))
    if as_json:
        answer_json(_summaries_of_recommended(found))
    else:
        for_people().print(_recommended_table(found))
        few = sum(each.is_too_few and not each.tool_version for each in found)
        if few:
            aside().print(f"Of {counted(few, 'tool')} too few jobs are known.", markup=False)


def _ledger(platform: Platform) -> Ledger:
    from knockem_dagster.joblogs.ledger import Ledger  # here: pyarrow and what it brings take a second

    return Ledger(platform.records, platform.objects)


def _marts(platform: Platform) -> Marts:
    from knockem_dagster.joblogs.marts import Marts  # here: as above
    from knockem_dagster.joblogs.served import open_served

    return Marts(platform.records, platform.objects, open_served(platform.settings))


@contextmanager
def _told_aside(what: str, faults: list[str]) -> Generator[None]:
    """Tell of a fault of something, or of the machine, in a sentence, and note it: others are none the worse for it."""
    import duckdb  # here: as above

    try:
        yield
    except (KnockemError, OSError, MemoryError, duckdb.OperationalError) as error:
        said = str(error) if isinstance(error, KnockemError) else first_line(error)
        aside().print(f"{harmless(what)}: {said}", markup=False, soft_wrap=True)
        faults.append(what)


def _tell_quarantine(seen: Sequence[tuple[InstanceRecord, ReportRecord]]) -> None:
    for instance, report in seen:
        if report.quarantine is not None and report.state is ReportState.QUARANTINED:
            where = f"{short(report.id)} ({report.name} of {instance.name})"
            for_people().print(harmless(f"{where}: {report.quarantine}"), markup=False, soft_wrap=True)


def _tell_rejects(reports: Sequence[ReportRecord]) -> None:
    for report in reports:
        for member, number in report.rejected.items():
            first = next((each for each in report.rejects if each.member == member), None)
            if number and first is not None:
                told = f"{report.name}: {counted(number, 'row')} of {member} left out, the first in line {first.line:,}"
                aside().print(harmless(f"{told}: {first.cause}"), markup=False, soft_wrap=True)


def _reports_table(seen: Sequence[tuple[InstanceRecord, ReportRecord]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("id", "instance", "report", "made", "state"):
        table.add_column(name, overflow="fold")
    for name in ("jobs", "rows", "left out"):
        table.add_column(name, justify="right")
    for instance, report in seen:
        table.add_row(
            short(report.id),
            escape(instance.name),
            escape(report.name),
            _when(report.generated),
            f"[{_COLOURS[report.state]}]{report.state}[/]",
            f"{report.jobs:,}",
            f"{sum(report.kept.values()):,}",
            f"{sum(report.rejected.values()):,}",
        )
    return table


def _instances_table(views: Sequence[InstanceView]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("id", "instance"):
        table.add_column(name, overflow="fold")
    for name in ("reports", "quarantined", "jobs"):
        table.add_column(name, justify="right")
    table.add_column("last good report")
    table.add_column("token")
    for view in views:
        table.add_row(
            short(view.instance.id),
            escape(view.instance.name),
            f"{view.reports[ReportState.LOADED]:,}",
            f"{view.reports[ReportState.QUARANTINED]:,}",
            f"{view.jobs:,}",
            _when(view.last_generated),
            "" if view.instance.token_digest is None else "yes",
        )
    return table


def _summaries_of_recommended(found: Sequence[Recommendation]) -> list[dict[str, Any]]:
    from knockem_dagster.joblogs.recommendations import COLUMNS, rows  # here: as above

    names = [column.name for column in COLUMNS]
    told = (dict(zip(names, row, strict=True)) for row in rows(found))
    return [{"tool_id": each.tool_id, **row} for each, row in zip(found, told, strict=True)]


def _recommended_table(found: Sequence[Recommendation]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("tool", "version"):
        table.add_column(name, overflow="fold")
    for name in ("jobs", "cores"):
        table.add_column(name, justify="right")
    table.add_column("memory, GB", overflow="fold")
    for name in ("at limit", "failed tries in 100", "time, s"):
        table.add_column(name, justify="right")
    table.add_column("from their jobs of")
    for row in _summaries_of_recommended(found):
        if row["verdict"]:
            continue
        table.add_row(
            escape(harmless(str(row["tool_id"]).rpartition("/")[2])),
            escape(harmless(row["tool_version"])) or "all",
            f"{row['jobs']:,}",
            "unknown" if row["cores"] is None else str(row["cores"]),
            row["memory_rule"] or "unknown",
            "" if row["memory_at_limit"] is None else f"{row['memory_at_limit']:.1%}",
            "" if row["failed_tries"] is None else f"{row['failed_tries']:.1f}",
            "unknown" if row["runtime"] is None else f"{row['runtime']:,.{0 if row['runtime'] >= 10 else 2}f}",
            f"{row['first_used'][:10]} to {row['last_used'][:10]}",
        )
    return table


def _when(seconds: float | None) -> str:
    return "" if seconds is None else moment(datetime.fromtimestamp(seconds, UTC).isoformat())


def _summary(report: ReportRecord) -> dict[str, Any]:
    fields = ("id", "instanceId", "name", "state", "generated", "galaxyVersion", "kept", "rejected", "rejects")
    document = report.to_document()
    told = {name: document.get(name) for name in fields}
    return told | {"quarantine": None if report.quarantine is None else str(report.quarantine)}


def _summary_of_instance(view: InstanceView) -> dict[str, Any]:
    return {
        "id": view.instance.id,
        "name": view.instance.name,
        "mayUpload": view.instance.token_digest is not None,
        "reports": {state.value: number for state, number in view.reports.items()},
        "jobs": view.jobs,
        "lastGenerated": view.last_generated,
    }
