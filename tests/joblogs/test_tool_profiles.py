"""One expression gives the same profiles of tools on DuckDB and on Spark, and they are the mart `tools`."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from knockem_dagster.errors import KnockemError
from knockem_dagster.joblogs import marts as marts_module
from knockem_dagster.joblogs import tool_profiles as profiles
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.job_resources import COLUMNS
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.tool_profiles import check_spark, latest_of_each_job, tool_profiles
from tests.services.command_line import ROOT
from tests.services.job_play import record_in
from tests.services.joblogs import REAL
from tests.services.profiles import assert_equal, needs_ibis, needs_spark, rows_of

# Of some tools nothing is known, of some there is one job, some have no version, and ids are odd. Each report tells
# otherwise of the jobs that it shares with others.
_GENERATED = """
    SELECT
        i::BIGINT AS id,
        CASE i % 97 WHEN 0 THEN 'Grüße, "tool"' WHEN 1 THEN '' WHEN 2 THEN i::VARCHAR ELSE 't' || i % 97 END AS tool_id,
        CASE WHEN i % 5 > 0 THEN '1.' || i % 5 END AS tool_version,
        CASE WHEN i % 7 = 0 THEN 'error' WHEN i % 11 = 0 THEN 'deleted' WHEN i % 97 <> 8 THEN 'ok' END AS state,
        CASE WHEN i % 13 > 0 THEN TIMESTAMP '2024-02-28 23:59:59.999999' + to_seconds(i * 997) END AS created,
        (i % 16)::DOUBLE AS cores,
        CASE WHEN i % 97 <> 3 AND i % 10 > 0 THEN exp(hash(i) / 2e18) END AS runtime,
        CASE WHEN i % 97 <> 4 THEN exp(hash(i + $seed) / 2e18) END AS cpu,
        CASE WHEN i % 97 <> 5 AND i % 4 > 0 THEN (i % 64 + 1) * 1073741824.0 END AS memory_allocated,
        CASE WHEN i % 97 <> 6 AND i % 3 > 0 THEN 1e6 * exp(hash(i + $seed) / 1.8e18) END AS memory_peak,
        NULL::DOUBLE AS memory_limit,
        CASE WHEN i % 97 <> 7 THEN i % 17 = 0 END AS is_censored,
        CASE WHEN i % 2 = 0 THEN hash(i + 3) / 1e9 END AS input_size
    FROM range($first, $end) numbers(i)
"""
_MADE = (("a", 1.0, 0, 9000), ("c", 3.5, 4000, 12_000), ("b", 3.5, 8000, 20_000))
"""Reports: name, when they were made, the first job and the one after the last."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a list of files of the lake: those of the real archives, and 20,000 jobs of three other reports."""
    folder = tmp_path_factory.mktemp("jobs")
    listed: list[tuple[str, tuple[float, str]]] = []
    with record_in(folder / "home") as platform, duckdb.connect() as made:
        for number, archive in enumerate(REAL):
            id = local_instance(platform.records, archive.parents[1].name).id
            metadata = archive.with_name("0.json").read_bytes()
            Ledger(platform.records, platform.objects).receive(id, "0", archive, metadata)
            marts = Marts(platform.records, platform.objects)
            marts.refresh(id)
            [file] = marts.made_of(id, folder)[1]
            copied = shutil.copy(file.path, folder / f"real{number}.parquet")
            listed.append((str(copied), (2.0, f"real{number}")))
        for name, generated, first, end in _MADE:
            made.execute(f"CREATE OR REPLACE TABLE jobs ({COLUMNS})")
            made.execute(f"INSERT INTO jobs {_GENERATED}", {"first": first, "end": end, "seed": ord(name)})
            made.table("jobs").write_parquet(str(folder / f"{name}.parquet"))
            listed.append((str(folder / f"{name}.parquet"), (generated, name)))
    (folder / "reports.json").write_text(json.dumps(listed))
    return folder / "reports.json"


def as_mart(reports: Path) -> list[dict[str, Any]]:
    """Return the rows of the mart, as the expression has them."""
    listed = json.loads(reports.read_bytes())
    records: Any = [SimpleNamespace(generated=generated, name=name) for _, (generated, name) in listed]
    with duckdb.connect() as made:
        marts_module._open_reports(made, records, [Path(file) for file, _ in listed])
        for name, rows in marts_module._computed(made, "one", marts_module._REPORTS.empty_table()):
            rows.create(name)
        return rows_of(made, "tools")


@needs_ibis
def test_on_duckdb_they_are_the_mart(reports: Path) -> None:
    ibis: Any = importlib.import_module("ibis")
    listed = json.loads(reports.read_bytes())
    connection = ibis.duckdb.connect()
    told = connection.read_parquet([file for file, _ in listed], filename=True).rename(file="filename")
    made = ibis.memtable([(file, *about) for file, about in listed], columns=["file", "generated", "report"])
    jobs = latest_of_each_job(told.mutate(instance=ibis.literal("one")), made)
    found = tool_profiles(jobs).to_pyarrow().to_pylist()
    assert_equal(as_mart(reports), found)
    assert sum(each["jobs"] for each in found) == 20_000
    assert any(each["memory_median"] is None for each in found) and any(each["tool_version"] is None for each in found)


@needs_spark
@pytest.mark.slow
def test_on_spark_they_are_the_same(reports: Path, tmp_path: Path) -> None:
    script = "from assets.spark_profiles import *; import sys; print(write_profiles('one', *map(Path, sys.argv[1:])))"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script, reports, tmp_path / "profiles.parquet"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    expected = as_mart(reports)
    assert ended.stdout.splitlines()[-1] == str({"tools": len(expected), "jobs": 20_000})
    assert_equal(expected, pq.read_table(tmp_path / "profiles.parquet").to_pylist())


def test_what_spark_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "spark_is_installed", lambda: False)
    with pytest.raises(KnockemError, match=r"pip install 'knockem_dagster\[spark\]'"):
        check_spark()
    monkeypatch.setattr(profiles, "spark_is_installed", lambda: True)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(KnockemError, match="Java 17"):
        check_spark()
