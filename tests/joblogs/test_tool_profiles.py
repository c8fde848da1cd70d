"""One expression gives the same profiles of tools on DuckDB and on Spark, and they are the mart `tools`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from knockem_dagster.errors import KnockemError
from knockem_dagster.joblogs import tool_profiles as profiles
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.job_resources import COLUMNS
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.tool_profiles import check_spark, tool_profiles
from tests.services.command_line import ROOT
from tests.services.job_play import record_in
from tests.services.joblogs import REAL
from tests.services.profiles import assert_equal, needs_ibis, needs_spark, rows_of

# Of some tools nothing is known, of some there is one job, some have no version, and ids are odd.
_GENERATED = """
    SELECT
        'generated ' || i % 3 AS instance,
        i::BIGINT AS id,
        CASE i % 97 WHEN 0 THEN 'Grüße, "tool"' WHEN 1 THEN '' WHEN 2 THEN i::VARCHAR ELSE 't' || i % 97 END AS tool_id,
        CASE WHEN i % 5 > 0 THEN '1.' || i % 5 END AS tool_version,
        CASE WHEN i % 7 = 0 THEN 'error' WHEN i % 11 = 0 THEN 'deleted' WHEN i % 97 <> 8 THEN 'ok' END AS state,
        CASE WHEN i % 13 > 0 THEN TIMESTAMP '2024-02-28 23:59:59.999999' + to_seconds(i * 997) END AS created,
        (i % 16)::DOUBLE AS cores,
        CASE WHEN i % 97 <> 3 AND i % 10 > 0 THEN exp(hash(i) / 2e18) END AS runtime,
        CASE WHEN i % 97 <> 4 THEN exp(hash(i + 1) / 2e18) END AS cpu,
        CASE WHEN i % 97 <> 5 AND i % 4 > 0 THEN (i % 64 + 1) * 1073741824.0 END AS memory_allocated,
        CASE WHEN i % 97 <> 6 AND i % 3 > 0 THEN 1e6 * exp(hash(i + 2) / 1.8e18) END AS memory_peak,
        NULL::DOUBLE AS memory_limit,
        CASE WHEN i % 97 <> 7 THEN i % 17 = 0 END AS is_censored,
        CASE WHEN i % 2 = 0 THEN hash(i + 3) / 1e9 END AS input_size
    FROM range(20000) numbers(i)
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give all jobs as a file: those of the real archives, and 20,000 others."""
    folder = tmp_path_factory.mktemp("jobs")
    with record_in(folder / "home") as platform, duckdb.connect() as made:
        made.execute(f"CREATE TABLE jobs (instance VARCHAR, {COLUMNS})")
        for archive in REAL:
            id = local_instance(platform.records, archive.parents[1].name).id
            metadata = archive.with_name("0.json").read_bytes()
            Ledger(platform.records, platform.objects).receive(id, "0", archive, metadata)
            marts = Marts(platform.records, platform.objects)
            marts.refresh(id)
            made.read_parquet(str(marts.jobs_of(id, folder)[1])).insert_into("jobs")
            with marts.opened([id]) as opened:
                assert_equal(rows_of(opened, "tools"), on_duckdb(marts.jobs_of(id, folder)[1]))
        made.execute(f"INSERT INTO jobs {_GENERATED}")
        made.table("jobs").write_parquet(str(folder / "jobs.parquet"))
    return folder / "jobs.parquet"


def on_duckdb(jobs: Path) -> list[dict[str, Any]]:
    ibis: Any = importlib.import_module("ibis")
    return tool_profiles(ibis.duckdb.connect().read_parquet(str(jobs))).to_pyarrow().to_pylist()


@needs_ibis
def test_on_duckdb_they_are_the_mart(jobs: Path) -> None:
    found = on_duckdb(jobs)
    assert sum(each["jobs"] for each in found) == 1940 + 98 + 20_000
    assert any(each["memory_median"] is None for each in found) and any(each["tool_version"] is None for each in found)


@needs_spark
@pytest.mark.slow
def test_on_spark_they_are_the_same(jobs: Path, tmp_path: Path) -> None:
    script = "from assets.spark_profiles import *; import sys; print(write_profiles(*map(Path, sys.argv[1:])))"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script, jobs, tmp_path / "profiles.parquet"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    expected = on_duckdb(jobs)
    assert ended.stdout.splitlines()[-1] == str({"tools": len(expected), "jobs": 22_038})
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
