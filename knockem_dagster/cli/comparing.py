"""`compare`: the estimates of several submissions side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from knockem_dagster.cli.terminal import for_people, open_platform, short

if TYPE_CHECKING:
    import pandas as pd


def compare(
    submissions: Annotated[
        list[str], typer.Argument(metavar="ID", help="Submissions, two at least, by id or the beginning of it.")
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="A folder, new or empty, for the table and its figure."),
    ] = None,
) -> None:
    """Show the estimates of several submissions, genomes or treatments, with their intervals."""
    # Here: pandas and matplotlib take a second, which other commands need not wait for.
    from knockem_dagster.assay_runs.comparison import compared, write_comparison
    from knockem_dagster.reports.comparison import comparison_table

    with open_platform() as platform:
        records = [platform.records.submissions.resolve(each) for each in submissions]
        table = comparison_table([compared(platform, record) for record in records])
    files = [] if folder is None else write_comparison(table, folder.absolute())
    console = for_people()
    _show(console, table)
    if folder is None:
        console.print("`--out DIR` writes this table as CSV and Parquet, and a figure as SVG and PNG.", markup=False)
    else:
        console.print(f"{len(files)} files are in {folder}: the table and its figure.", markup=False, soft_wrap=True)


def _show(console: Console, table: pd.DataFrame) -> None:
    from knockem_dagster.reports.comparison import Outcome

    console.print(_submissions(table))
    for quantity, of_quantity in table.groupby("quantity", sort=False):
        unit = of_quantity["unit"].iloc[0]
        console.print(f"\n[bold]{escape(str(quantity))}[/]" + (f" ({unit})" if unit else ""))
        for method, rows in of_quantity.groupby("method", sort=False):
            console.print(f" {method}", markup=False, style="italic")
            console.print(_estimates(rows))
    console.print()
    if (table["outcome"] == Outcome.NOT_ESTIMATED).any():
        console.print("[dim]not estimated: the submission was not asked for it, or it is not done.[/dim]")
    if (table["outcome"] == Outcome.NO_VALUE).any():
        console.print("[dim]no value: the method gave none; the submission's report says why.[/dim]")


def _submissions(table: pd.DataFrame) -> Table:
    """Return who is compared, a row each."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("id", no_wrap=True)
    shown.add_column("state", no_wrap=True)
    shown.add_column("organism", overflow="fold")
    shown.add_column("sites", justify="right", no_wrap=True)
    shown.add_column("set apart by", overflow="fold")
    for row in table.drop_duplicates("submission").to_dict("records"):
        texts = (row["state"], row["organism"], f"{row['sites']:,}", row["distinction"])
        shown.add_row(short(row["submission"]), *map(escape, texts))
    return shown


def _estimates(rows: pd.DataFrame) -> Table:
    """Return the estimates of one quantity by one method; all such tables have the same columns at the same places."""
    from knockem_dagster.reports.comparison import Outcome, interval_of
    from knockem_dagster.reports.wording import number, share

    shown = Table(box=None, padding=(0, 1), header_style="dim")
    shown.add_column("id", no_wrap=True, min_width=8)
    shown.add_column("estimate", justify="right", no_wrap=True, min_width=13)
    shown.add_column("interval", justify="right", no_wrap=True, min_width=20)
    shown.add_column("level", justify="right", no_wrap=True, min_width=5)
    shown.add_column("competitions", justify="right", no_wrap=True, min_width=12)
    for row in rows.to_dict("records"):
        is_estimated = row["outcome"] == Outcome.ESTIMATED
        interval = interval_of(row["low"], row["high"])
        shown.add_row(
            short(row["submission"]),
            number(row["value"]) if is_estimated else f"[dim]{row['outcome']}[/]",
            interval or ("none" if is_estimated else ""),
            share(row["level"], 1) if interval else "",
            f"{row['n']:,}" if row["n"] else "",
        )
    return shown
