"""Profiles of tools, compared: what is counted exactly, what is added up within rounding."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import duckdb
import pytest

from knockem_dagster.joblogs.tool_profiles import KEYS, spark_is_installed

needs_ibis = pytest.mark.skipif(find_spec("ibis") is None, reason="the extra `spark` is not installed")
needs_spark = pytest.mark.skipif(
    not spark_is_installed() or shutil.which("java") is None, reason="the extra `spark`, or Java, is not installed"
)


def rows_of(connection: duckdb.DuckDBPyConnection, name: str) -> list[dict[str, Any]]:
    """The rows of a mart, as the expression has them."""
    quantiles = [
        f"{quantity}_quantiles[{place}] AS {quantity}_{which}"
        for quantity in ("memory", "runtime")
        for place, which in ((1, "median"), (2, "95"))
    ]
    columns = f"* EXCLUDE (memory_quantiles, runtime_quantiles), {', '.join(quantiles)}"
    return connection.sql(f"SELECT {columns} FROM {name}").to_arrow_table().to_pylist()


def assert_equal(some: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]]) -> None:
    """Compare profiles, in whatever order: numbers that are no counts within 1e-9 of their size."""
    first, second = (
        {tuple(row[key] for key in KEYS): {name: row[name] for name in sorted(row)} for row in rows}
        for rows in (some, others)
    )
    assert first.keys() == second.keys()
    for key, row in first.items():
        assert row.keys() == second[key].keys()
        for name, value in row.items():
            close = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            assert second[key][name] == close, (key, name)
