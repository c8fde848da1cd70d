"""What a comparison of submissions is made from, read from the record, and its table and figure in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from knockem_dagster.assay_runs.new_folder import new_folder
from knockem_dagster.assay_runs.submission_file import SubmissionFile
from knockem_dagster.assay_runs.tables import read_table, to_parquet
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports.comparison import COMPARISON, ComparedSubmission
from knockem_dagster.reports.comparison_figure import comparison_figure
from knockem_dagster.reports.figure_files import to_print_png, to_svg

# What is told otherwise: as organism and genome, and by which estimates there are. Whose it is, is no treatment.
_NO_TREATMENT = frozenset({"containerImage", "genome", "assayTypes", "userEmail"})


def compared(platform: Platform, submission: SubmissionRecord) -> ComparedSubmission:
    """Return what a comparison needs of a submission; its estimates are an empty table before they are made."""
    estimates = read_table(platform.objects, submission.id, "estimates")
    if estimates is None:
        estimates = pd.DataFrame(columns=[column.name for column in TABLES["estimates"].columns])
    return ComparedSubmission(
        id=submission.id,
        state=submission.state.value,
        organism=submission.container_image,
        organism_digest=submission.image_digest,
        genome_digest=platform.records.genomes.get(submission.genome_id).digest,
        num_sites=submission.num_sites,
        settings=dict(_settings(submission)),
        estimates=estimates,
    )


def write_comparison(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write a comparison as Parquet, CSV, SVG and PNG into a new or empty folder and return the files.

    Raises KnockemError when the folder holds something, StoreError when it cannot be written.
    """
    figure = comparison_figure(table)
    with new_folder(folder) as content:
        (content / "comparison.parquet").write_bytes(to_parquet(COMPARISON, table))
        table.to_csv(content / "comparison.csv", index=False)
        (content / "comparison.svg").write_text(to_svg(figure), encoding="utf-8")
        (content / "comparison.png").write_bytes(to_print_png(figure))
    return sorted(folder.iterdir())


def _settings(submission: SubmissionRecord) -> Iterator[tuple[str, str]]:
    """Yield what a submission file may ask for, as it was resolved: what stands in a mapping by its own name."""
    document = submission.model_dump(by_alias=True, mode="json")
    for name, field in SubmissionFile.model_fields.items():
        key = field.alias or name
        value = document.get(key)
        if key in _NO_TREATMENT or value is None:
            continue
        if isinstance(value, Mapping):
            yield from ((str(inner), str(content)) for inner, content in sorted(value.items()))
        else:
            yield key, str(value)
