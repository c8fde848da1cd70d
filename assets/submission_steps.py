"""What the assets of a submission do alike: take its run, ask an assay, judge and show what came of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from matplotlib.figure import Figure
from sqlalchemy.exc import DBAPIError

from assets.checks import FindingCheck, accounted_for, judged
from assets.partitions import submissions
from knockem_dagster.assay_runs.findings import TABLE_OF, Finding
from knockem_dagster.assay_runs.study import Study
from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.assay_runs.tables import table_key
from knockem_dagster.errors import KnockemError, StoreError, SubmissionBusy, SubmissionCanceled
from knockem_dagster.records.assays import AssayType, with_needs
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports.previews import figure_markdown, table_markdown
from resources.platform import SubmissionRuns

GROUP = "knockout"


@contextmanager
def submission_run(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> Iterator[SubmissionRun]:
    """Give an asset the run of its submission; what goes wrong is stored with the submission and shown in the UI."""
    try:
        run = runs.of(context.partition_key, name=context.run.run_id)
    except KnockemError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    try:
        yield run
    except SubmissionBusy as busy:
        raise dg.Failure(str(busy), allow_retries=False) from busy
    except SubmissionCanceled as canceled:
        raise dg.DagsterExecutionInterruptedError(str(canceled)) from canceled
    except (StoreError, DBAPIError) as error:
        # A store is away or full, which is no fault of the submission: it is interrupted, and upkeep goes on with it.
        raise dg.Failure(str(error), allow_retries=False) from error
    except KnockemError as error:
        run.fail(str(error))
        raise dg.Failure(str(error), allow_retries=False) from error
    except Exception as error:
        run.fail(f"an error of the platform itself: {error!r}")
        raise


Draw = Callable[[SubmissionRun, Finding], Figure]
"""From what an assay found to a small picture of it."""


def assay_asset(
    assay_type: AssayType,
    *,
    deps: Sequence[dg.AssetsDefinition],
    description: str,
    checks: Sequence[FindingCheck] = (),
    draw: Draw | None = None,
) -> dg.AssetsDefinition:
    """Return the asset that runs an assay, named like its table: numbers, first rows, checks, a picture if any.

    That every competition is accounted for is checked of all of them.
    """
    name = TABLE_OF[assay_type]
    every = (accounted_for, *checks)

    @dg.asset(
        name=name,
        partitions_def=submissions,
        deps=deps,
        group_name=GROUP,
        kinds={"parquet"},
        code_version=TABLES[name].version,
        check_specs=[check.spec(name) for check in every],
        description=description,
    )
    def asset(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
        with submission_run(context, runs) as run:
            finding = _find(context, run, assay_type)
            metadata = _summed_up(run, finding)
            if draw is not None:
                picture = figure_markdown(draw(run, finding), description=name.replace("_", " "))
                metadata["plot"] = dg.MetadataValue.md(picture)
            return dg.MaterializeResult(
                metadata=metadata, check_results=judged(run, *(check.result(run, finding) for check in every))
            )

    return asset


def _find(context: dg.AssetExecutionContext, run: SubmissionRun, assay_type: AssayType) -> Finding:
    """Return what an assay found, with the submission's counters up to date and progress shown while it runs."""
    study = Study(run)
    results = list(run.records.assay_results.find({"submissionId": run.submission.id}))
    standing = [result for result in results if run.submission.stands(result)]
    others = [result for result in results if result in standing or result.assay_type is not assay_type]
    wanted = with_needs(frozenset(run.submission.assay_types))
    run.note_assays(
        completed=len(standing),
        active=1,
        pending=max(0, len(wanted) - len(standing) - 1),
        competitions=sum(result.num_competitions for result in others),
        untestable=sum(result.num_untestable for result in others),
    )
    run.on_progress = lambda text: context.log_event(
        dg.AssetObservation(context.asset_key, partition=context.partition_key, metadata={"progress": text})
    )
    return study.find(assay_type)


def _summed_up(run: SubmissionRun, finding: Finding) -> dict[str, Any]:
    """Return the metadata that sums an assay up: numbers, the first rows of its table, where it is."""
    name = TABLE_OF[finding.assay_type]
    return {
        **{key: _to_digits(value) for key, value in finding.numbers.items() if value is not None},
        "competitions": finding.num_competitions,
        "untestable competitions": finding.num_untestable,
        "dagster/row_count": len(finding.table),
        "dagster/column_schema": column_schema(name),
        "table": dg.MetadataValue.md(table_markdown(finding.table.drop(columns=["knockout"], errors="ignore"), rows=8)),
        "stored at": run.objects.url(table_key(run.submission.id, name)),
    }


def _to_digits(value: Any) -> Any:
    """Return a number with the digits that people read; the record and the tables have all of them."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def column_schema(name: str) -> dg.TableSchema:
    """Return a table's columns with their units, as the UI shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(column.name, column.dtype, description=f"{column.meaning} [{column.unit or 'no unit'}]")
            for column in TABLES[name].columns
        ]
    )
