"""What a submission costs Dagster: one run, few steps, and an event log that does not grow with its competitions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from knockem_dagster.records.assays import AssayType
from tests.end_to_end.homes import Home

MOST_STEPS = 15
MOST_EVENT_BYTES = 2_000_000

EVERY = [assay_type.value for assay_type in AssayType]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with one completed submission of all assay types."""
    home = Home.make(tmp_path_factory.mktemp("size") / "home")
    home.complete(assayTypes=EVERY)
    yield home
    home.destroy()


def test_a_submission_is_one_run_of_few_steps(home: Home) -> None:
    assert len(home.dagster_runs()) == 1
    with closing(sqlite3.connect(shard(home))) as connection:
        steps = connection.execute("SELECT count(DISTINCT step_key) FROM event_logs WHERE step_key <> ''").fetchone()[0]
    assert 0 < steps <= MOST_STEPS


def test_the_event_log_of_a_submission_is_small(home: Home) -> None:
    size = sum(event_bytes(path) for path in (shard(home), shard(home).with_name("index.db")))
    assert 0 < size < MOST_EVENT_BYTES


def test_more_competitions_make_no_more_events(home: Home) -> None:
    before = {path: number_of_events(path) for path in shards(home)}
    home.complete(assayTypes=EVERY, seed=2, skeletons=24)
    (added,) = set(shards(home)) - set(before)
    # Progress is observed at doubling intervals of time: a few more are allowed.
    assert number_of_events(added) <= max(before.values()) + 20


def shards(home: Home) -> list[Path]:
    """Return the files with the events of each run."""
    folder = home.data / "dagster" / "history" / "runs"
    return [path for path in folder.glob("*.db") if path.name != "index.db"]


def shard(home: Home) -> Path:
    """Return the file with the events of the first run."""
    return min(shards(home), key=lambda path: path.stat().st_ctime)


def event_bytes(path: Path) -> int:
    """Return the bytes of all event rows of a file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT coalesce(sum(length(CAST(event AS BLOB))), 0) FROM event_logs").fetchone()[0]


def number_of_events(path: Path) -> int:
    """Return the number of event rows of a file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM event_logs").fetchone()[0]
