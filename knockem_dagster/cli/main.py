"""The command line: one application, assembled from the command families. No command's logic is here."""

from __future__ import annotations

import typer

from knockem_dagster.cli import (
    accounts,
    checking,
    comparing,
    controlling,
    demonstration,
    deploying,
    developing,
    joblogs,
    looking,
    nodes,
    planning,
    queueing,
    results,
    serving,
    submitting,
    workflows,
    working,
)
from knockem_dagster.cli.terminal import explained_errors

app = typer.Typer(
    name="knockem",
    help="Knockout experiments on digital genomes: from a genome and a container image to a report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=explained_errors(),
)
app.command("demo")(demonstration.demo)
app.command("check")(checking.check)
app.command("plan")(planning.plan)
app.command("submit")(submitting.submit)
app.command("list")(looking.list_submissions)
app.command("status")(looking.status)
app.command("logs")(looking.logs)
app.command("cancel")(controlling.cancel)
app.command("resume")(controlling.resume)
app.command("extend")(controlling.extend)
app.command("report")(results.report)
app.command("export")(results.export)
app.command("compare")(comparing.compare)
app.command("purge")(controlling.purge)
app.command("up")(serving.up)
app.command("api")(serving.api)
app.command("worker")(working.worker)
app.command("workers")(working.workers)
app.add_typer(queueing.app, name="queue")
app.add_typer(workflows.app, name="workflow")
app.add_typer(accounts.users, name="user")
app.add_typer(accounts.tokens, name="token")
app.add_typer(nodes.app, name="nodes")
app.add_typer(deploying.app, name="deploy")
app.add_typer(joblogs.app, name="joblogs")
app.command("test", context_settings=developing.PASS_ON)(developing.test)
app.command("bench")(developing.bench)


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="./knockem")
