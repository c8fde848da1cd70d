"""The tables of a submission in the object store: Parquet, exactly as records/tables.py declares them."""

from __future__ import annotations

import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from knockem_dagster.records.tables import TABLES, Table
from knockem_dagster.stores.objects import Objects


def submission_prefix(submission_id: str) -> str:
    """Return where all objects of a submission are."""
    return f"submissions/{submission_id}/"


def table_key(submission_id: str, name: str) -> str:
    """Return the key of a table."""
    return f"{submission_prefix(submission_id)}tables/{name}.parquet"


def report_key(submission_id: str) -> str:
    """Return the key of the report's page."""
    return f"{submission_prefix(submission_id)}report.html"


def report_text_key(submission_id: str) -> str:
    """Return the key of what the report says first, and of its methods, as plain text."""
    return f"{submission_prefix(submission_id)}report.txt"


def figure_key(submission_id: str, name: str) -> str:
    """Return the key of a figure."""
    return f"{submission_prefix(submission_id)}figures/{name}.svg"


def write_table(objects: Objects, submission_id: str, name: str, frame: pd.DataFrame) -> str:
    """Store a table and return its key. The same values give the same bytes."""
    key = table_key(submission_id, name)
    objects.put(key, to_parquet(TABLES[name], frame), content_type="application/vnd.apache.parquet")
    return key


def read_table(objects: Objects, submission_id: str, name: str) -> pd.DataFrame | None:
    """Return a table, or None when it has not been made."""
    key = table_key(submission_id, name)
    if not objects.exists(key):
        return None
    return pq.read_table(io.BytesIO(objects.get(key))).to_pandas()


def to_parquet(table: Table, frame: pd.DataFrame) -> bytes:
    """Return a table as Parquet: declared columns only, in their order, sorted, with units in the schema."""
    arrow_types = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
    schema = pa.schema(
        [
            pa.field(
                column.name,
                arrow_types[column.dtype],
                metadata={"unit": column.unit, "meaning": column.meaning},
            )
            for column in table.columns
        ],
        metadata={"table": table.name, "version": table.version},
    )
    ordered = frame[[column.name for column in table.columns]].sort_values(list(table.sort_key), kind="stable")
    content = pa.Table.from_pandas(ordered.reset_index(drop=True), schema=schema, preserve_index=False)
    buffer = io.BytesIO()
    pq.write_table(content.replace_schema_metadata(schema.metadata), buffer, compression="zstd")
    return buffer.getvalue()
