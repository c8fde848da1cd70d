"""How long somebody waits for the tables and pages of job logs: 10^8 metric rows, nothing cached beforehand.

Three instances, of which one has most of the jobs, send a report a month for two years. No archives are made: the
tables of jobs that reading them would have left in the lake are written, with made-up values, and the reports recorded
as read. The marts are computed from those for real. What is recommended for the tool that is used most, in eight
versions, is kept with each instance's, as its run keeps it for all tools; of all instances together nothing is. Then
each table that a page asks is asked once over HTTP, of a server in a process of its own that was just started; and each
page is opened once in chromium, by another such server, until its last table is there (left out where there is no
chromium). Before each, what the system keeps in memory of the record's and the object store's files is dropped.

    python -m benchmarks.pages [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
from numpy.random import Generator, default_rng
from playwright.sync_api import sync_playwright
from pyarrow import parquet

from benchmarks.measurement import Measurement, command
from benchmarks.workplace import Workplace
from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.accounts.users import add_user
from knockem_dagster.joblogs import job_resources
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import metadata_key, table_key
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.questions import QUESTIONS, answer
from knockem_dagster.joblogs.recommendations import KEPT_FILE, as_file, recommend
from knockem_dagster.joblogs.report import PARSER_VERSION
from knockem_dagster.platform import Platform
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.joblogs import ReportRecord, ReportState
from knockem_dagster.records.record import derived_id

METRIC_ROWS = 10**8
METRIC_ROWS_PER_JOB = 11
SHARES = (0.8, 0.15, 0.05)
"""Of the jobs that each instance has."""
MONTHS = 24
TOOLS = 400
FEW_ROWS = 10**7
LIMIT_SECONDS, LIMIT_SECONDS_OF_MANY = 1.0, 2.0
"""Up to FEW_ROWS, and above."""
PATIENCE_MS = 120_000
_HAS_TABLE = """(heading) => [...document.querySelectorAll(".card")].some(
    (card) => card.querySelector("h2")?.textContent === heading && card.querySelector("td"))"""
_STATES = ("ok", "error", "deleted")
_ADMINISTRATOR = "root@example.org"
_COLUMNS = tuple(column.split()[0] for column in job_resources.COLUMNS.split(", "))


def run(scale: float, seed: int) -> list[Measurement]:
    """Measure with the jobs of `scale` times 10^8 metric rows."""
    rows = max(10**5, round(METRIC_ROWS * scale))
    limit = LIMIT_SECONDS if rows <= FEW_ROWS else LIMIT_SECONDS_OF_MANY
    rng = default_rng(seed)
    with (
        tempfile.TemporaryDirectory(prefix="knockem-pages-") as folder,
        Workplace(Path(folder), lease_seconds=5.0) as workplace,
    ):
        platform = workplace.platform
        add_user(platform.records, _ADMINISTRATOR)
        token = issue_token(platform.records, _ADMINISTRATOR, Scope.ADMINISTRATOR)[1]
        marts = Marts(platform.records, platform.objects)
        instances = [local_instance(platform.records, f"instance {number}").id for number in range(len(SHARES))]
        jobs = [round(rows / METRIC_ROWS_PER_JOB * share) for share in SHARES]
        for instance, number in zip(instances, jobs, strict=True):
            _write_reports(platform, instance, number, rng)
        began = time.perf_counter()
        for instance in instances:
            marts.refresh(instance)
        refreshed = time.perf_counter() - began
        tool = str(answer(marts, "tools").rows[0][1])
        for instance in instances:
            with marts.opened([instance]) as opened:
                kept = as_file(recommend(opened, tool))
            marts.keep(instance, marts.generation_of(instance), KEPT_FILE, kept)
        os.sync()
        waited = [*_tables(workplace, token, instances[0], tool), *_pages(workplace, token, instances[0], tool)]
    return [
        Measurement(f"marts of {sum(jobs):,} jobs computed", refreshed, "s", 1),
        *(Measurement(name, seconds, "s", 1, "limit", limit) for name, seconds in waited),
    ]


def _tables(workplace: Workplace, token: str, instance: str, tool: str) -> Iterator[tuple[str, float]]:
    """Yield what a page asks, and how long its answer takes."""
    one = f"/v1/jobLogs/instances/{instance}"
    asked: dict[str, tuple[str, dict[str, str]]] = {
        "the instances": ("/v1/jobLogs/instances", {}),
        "an instance": (one, {}),
        "its reports": (f"{one}/reports", {}),
    }
    for whose, place in (("an instance's", f"{one}/tables"), ("all instances'", "/v1/jobLogs/tables")):
        for name, question in QUESTIONS.items():
            if question.of_an_instance and place != f"{one}/tables":
                continue
            asked[f"{whose} {name}"] = (f"{place}/{name}", {"tool": tool} if question.of_a_tool else {})
    api = workplace.start_api()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=api.url, headers=headers, timeout=PATIENCE_MS / 1000) as client:
        for name, (place, about) in asked.items():
            _forget(workplace.home)
            began = time.perf_counter()
            found = client.get(place, params={"limit": "1000", **about})
            seconds = time.perf_counter() - began
            found.raise_for_status()
            yield name, seconds
    api.kill()


def _pages(workplace: Workplace, token: str, instance: str, tool: str) -> Iterator[tuple[str, float]]:
    """Yield each page, and how long it takes until its last table is there; nothing where there is no chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return
    api = workplace.start_api()
    pages = {
        "page of an instance": (f"/joblogs/{instance}", "Most wasteful tools"),
        "page of a tool": (str(httpx.URL(f"/joblogs/{instance}", params={"tool": tool})), "How long jobs ran"),
        "page of all instances": ("/joblogs", "Most wasteful tools"),
        "page of a tool of all": (str(httpx.URL("/joblogs", params={"tool": tool})), "How long jobs ran"),
    }
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        for name, (place, last) in pages.items():
            page = browser.new_context(base_url=api.url).new_page()
            _forget(workplace.home)
            began = time.perf_counter()
            page.goto(f"{place}#{token}")
            page.wait_for_function(_HAS_TABLE, arg=last, timeout=PATIENCE_MS)  # at each frame; `expect` looks seldom
            yield name, time.perf_counter() - began
            page.context.close()
        browser.close()
    api.kill()


def _forget(folder: Path) -> None:
    """Drop what the system keeps in memory of the files below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def _write_reports(platform: Platform, instance: str, jobs: int, rng: Generator) -> None:
    """Put the jobs of an instance into the lake, as a report a month."""
    with tempfile.TemporaryDirectory(prefix="knockem-pages-") as scratch:
        path = Path(scratch) / "table.parquet"
        ends = np.linspace(0, jobs, MONTHS + 1).astype(int)
        for month, (first, end) in enumerate(pairwise(ends)):
            begins = datetime(2024 + month // 12, 1 + month % 12, 1, tzinfo=UTC)
            digest = hashlib.sha256(f"{instance} {month}".encode()).hexdigest()
            number = int(end - first)
            report = ReportRecord(
                id=derived_id("jobLogReport", instance, str(month)),
                instance_id=instance,
                name=str(month),
                archive_digest=digest,
                digest=digest,
                state=ReportState.LOADED,
                generated=begins.timestamp() + 31 * 86400,
                galaxy_version="26.1",
                parser_version=PARSER_VERSION,
                kept={"jobs": number, "metric_num": number * METRIC_ROWS_PER_JOB, "datasets": 2 * number},
            )
            parquet.write_table(_jobs(np.arange(first, end), month, begins, rng), path, compression="zstd")
            platform.objects.put(table_key(report, job_resources.NAME), path)
            said = {"version": 3, "galaxy_version": "26.1", "generated": str(report.generated), "jobs": {"ok": number}}
            said |= {"report_hash": f"sha256:{digest}", "users": {"active": 100, "total": 1000}}
            platform.objects.put(metadata_key(report), json.dumps(said).encode())
            platform.records.job_log_reports.add(report)


def _jobs(ids: np.ndarray, month: int, begins: datetime, rng: Generator) -> pa.Table:
    """Return the jobs of a month: few tools have most of them, and a tool has another version every four months."""
    number = len(ids)
    tools = rng.zipf(1.5, number) % TOOLS
    runtime = 1 + rng.lognormal(4, 1.5, number).astype(int)
    peak = rng.lognormal(20, 1.4, number).astype(int)
    allocated = 2.0 ** rng.integers(30, 36, number)
    created = np.datetime64(begins.replace(tzinfo=None), "us") + rng.integers(0, 28 * 86_400_000_000, number)
    names = [f"toolshed.g2.bx.psu.edu/repos/iuc/tool_{tool}/tool_{tool}" for tool in range(TOOLS)]
    versions = [f"1.{(tool + month) // 4 % 7}+galaxy{tool % 3}" for tool in range(TOOLS)]
    columns = (
        ids,
        _named(tools, names),
        _named(tools, versions),
        _named(rng.choice(len(_STATES), number, p=[0.86, 0.09, 0.05]), _STATES),
        created,
        rng.choice([1.0, 4.0, 8.0], number),
        runtime.astype(float),
        runtime * rng.uniform(0.5, 4, number),
        allocated,
        pa.array(peak.astype(float), mask=rng.random(number) < 0.05),
        allocated,
        peak >= 0.99 * allocated,
        np.round(rng.lognormal(13, 2, number)),
    )
    return pa.table(dict(zip(_COLUMNS, columns, strict=True)))


def _named(places: np.ndarray, names: list[str] | tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(places.astype(np.int32), list(names)).cast(pa.string())


if __name__ == "__main__":
    command(run, about=__doc__, title="bench pages")
