"""A submission in a folder: every table as Parquet and CSV, what their columns mean, the report, the submission."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from knockem_dagster.assay_runs.competition_table import COMPETITION_COLUMNS, competition_frame, competition_pages
from knockem_dagster.assay_runs.new_folder import new_folder
from knockem_dagster.assay_runs.tables import read_table, submission_prefix, table_key
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.records.tables import TABLES, Column

_GUIDE = """\
# Submission {id}

Tables of a knockout study, each as Parquet and as CSV (UTF-8, a header line, missing values empty).
The purpose of some competitions is the word "null", which pandas takes for a missing value: read the CSV
with `keep_default_na=False, na_values=[""]`, or the Parquet.

- `submission.json`: what was asked, of which organism, with which seed
- `genome`: the wild type's content
- `competitions`: every competition and its answer
- `columns.json`: what every column holds, in which unit
- `report.html`, `report.txt`, `figures/`: the report, what it says first as text, and its figures, when it was made

Tables here: {tables}.
"""


def export(platform: Platform, submission: SubmissionRecord, folder: Path) -> list[Path]:
    """Write a submission into a new or empty folder and return the files. All of them appear at once.

    Raises KnockemError when the folder holds something, StoreError when it cannot be written.
    """
    with new_folder(folder) as content:
        _write(platform, submission, content)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write(platform: Platform, submission: SubmissionRecord, folder: Path) -> None:
    described: dict[str, Sequence[Column]] = {}
    for name, table in TABLES.items():
        frame = read_table(platform.objects, submission.id, name)
        if frame is not None:
            key = table_key(submission.id, name)
            (folder / f"{name}.parquet").write_bytes(platform.objects.get(key))
            frame.to_csv(folder / f"{name}.csv", index=False)
            described[name] = table.columns
    _write_competitions(platform, submission, folder)
    described["competitions"] = COMPETITION_COLUMNS
    columns = {
        name: [{"name": c.name, "dtype": c.dtype, "unit": c.unit, "meaning": c.meaning} for c in declared]
        for name, declared in described.items()
    }
    (folder / "columns.json").write_text(json.dumps(columns, indent=2), encoding="utf-8")
    document = submission.model_dump(by_alias=True, exclude_none=True, mode="json", exclude={"lease"})
    (folder / "submission.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
    genome = platform.records.genomes.get(submission.genome_id)
    (folder / "genome").write_text(genome.content or "", encoding="utf-8")
    guide = _GUIDE.format(id=submission.id, tables=", ".join(described))
    (folder / "README.md").write_text(guide, encoding="utf-8")
    _copy_pages(platform, submission, folder)


def _write_competitions(platform: Platform, submission: SubmissionRecord, folder: Path) -> None:
    """Write the competitions a page at a time: there may be a million."""
    schema = pa.Schema.from_pandas(competition_frame([]), preserve_index=False)
    parquet, csv = folder / "competitions.parquet", folder / "competitions.csv"
    with (
        pq.ParquetWriter(parquet, schema, compression="zstd") as writer,
        csv.open("w", encoding="utf-8", newline="") as text,
    ):
        competition_frame([]).to_csv(text, index=False)
        for page in competition_pages(platform.records, submission):
            writer.write_table(pa.Table.from_pandas(page, schema=schema, preserve_index=False))
            page.to_csv(text, index=False, header=False)


def _copy_pages(platform: Platform, submission: SubmissionRecord, folder: Path) -> None:
    """Copy the report and its figures: whatever the submission has stored but tables."""
    prefix = submission_prefix(submission.id)
    for stored in platform.objects.list(prefix):
        name = stored.key.removeprefix(prefix)
        if not name.startswith("tables/"):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(platform.objects.get(stored.key))
