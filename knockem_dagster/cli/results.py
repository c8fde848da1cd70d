"""`report` and `export`: taking results out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from knockem_dagster.assay_runs.places import place_of
from knockem_dagster.cli.terminal import SubmissionId, aside, for_people, open_platform, short
from knockem_dagster.errors import NotFound
from knockem_dagster.records.submissions import State


def report(
    submission: SubmissionId,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
) -> None:
    """Print where a submission's report is: a path, or a URL where objects are served. Aside, what it says first."""
    from knockem_dagster.assay_runs.tables import report_key, report_text_key  # here: pandas takes half a second

    with open_platform() as platform:
        record = platform.records.submissions.resolve(submission)
        try:
            place = place_of(platform, report_key(record.id), what=f"The report of submission {short(record.id)}")
        except NotFound as error:
            if record.state is State.COMPLETED:
                raise
            raise NotFound(
                f"{error} The submission is {record.state.value}; "
                f"`./knockem status {short(record.id)}` shows how far it is."
            ) from error
        text = report_text_key(record.id)
        said = platform.objects.get(text).decode() if platform.objects.exists(text) else ""
    findings = said.partition("\n\n")[0]
    if findings:
        aside().print(findings, markup=False)
    typer.echo(place)
    if open_it:
        typer.launch(place)


def export(
    submission: SubmissionId,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder, new or empty.")],
) -> None:
    """Write every table as Parquet and CSV, with the report and what the columns mean."""
    from knockem_dagster.assay_runs.export import export as write_export  # here: pandas takes half a second

    with open_platform() as platform:
        record = platform.records.submissions.resolve(submission)
        files = write_export(platform, record, folder.absolute())
    for_people().print(f"{len(files)} files are in {folder}; README.md there says what they are.", markup=False)
