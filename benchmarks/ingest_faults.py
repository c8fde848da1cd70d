"""A campaign against what takes job logs in: spoiled archives, processes killed at random, several at once, readers.

Each spoiled report arrives beside a good one of other jobs. Afterwards it is loaded, and its rows in the marts are
those of the report it was made of, or quarantined with what is wrong and what is to be done; the good one is as it was.
What the processes do is in ingest_process.py: after all that befell them, the marts are those of a home left in peace.

    python -m benchmarks.ingest_faults [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import itertools
import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.random import Generator, default_rng

from benchmarks.killed_ingest import JOBS_COUNTED, measure_killed_ingest
from benchmarks.measurement import Measurement, command
from benchmarks.spoiled_archives import GoodReport, Must, Spoiled, packed, read_good, said_of, spoiled
from benchmarks.workplace import ROOT
from knockem_dagster.errors import KnockemError
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.platform import Platform
from knockem_dagster.records.joblogs import ReportRecord, ReportState
from knockem_dagster.settings import load_settings

FLIPS = 500
FEWEST_FLIPS = 20
SMALL = ROOT / "tests/data/joblogs/a8fe6488-b87f-55ae-ae9e-2d2764db2977/archives/0.tar.gz"
"""A real archive, of 98 jobs."""
OTHER_JOBS = 1_000_000
"""By so much the ids of the good report's jobs are larger."""
Rows = list[tuple[Any, ...]]


def run(scale: float, seed: int) -> list[Measurement]:
    """Run the campaign with `scale` times the full number of flips and kills. Raises KnockemError for any fault."""
    rng = default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="knockem-ingest-faults-") as folder:
        return [
            *measure_spoiled(Path(folder), rng, flips=max(FEWEST_FLIPS, round(FLIPS * scale))),
            *measure_killed_ingest(Path(folder), rng, scale=scale),
        ]


def measure_spoiled(folder: Path, rng: Generator, *, flips: int) -> list[Measurement]:
    """Send spoiled reports, so many with a flipped bit, and reports more than once. Raises KnockemError."""
    platform = Platform(load_settings(home=folder / "spoiled", documents_url=None, queue_url=None))
    try:
        campaign = _Campaign(platform, folder, read_good(SMALL))
        for each in spoiled(campaign.good, rng, flips=flips):
            campaign.send(each)
        repeated = campaign.send_again()
    finally:
        platform.close()
    became, sent = campaign.became, campaign.became.total()
    return [
        Measurement("spoiled reports, each loaded whole or quarantined", sent, "reports", sent),
        Measurement("of these quarantined, with what is to be done", became[ReportState.QUARANTINED], "reports", sent),
        Measurement("of these loaded", became[ReportState.LOADED], "reports", sent),
        Measurement("reports sent again, changed, late or in another order", repeated, "reports", repeated),
        Measurement("wrong rows in the marts", 0, "rows", sent + repeated, "at most", 0),
    ]


class _Campaign:
    """A home to which spoiled reports are sent, each to an instance with a good one."""

    def __init__(self, platform: Platform, folder: Path, good: GoodReport) -> None:
        self.good = good
        self.became: Counter[ReportState] = Counter()
        self._records = platform.records
        self._ledger = Ledger(platform.records, platform.objects)
        self._marts = Marts(platform.records, platform.objects)
        self._file = folder / "sent"
        self._beside = tuple(good.shifted(OTHER_JOBS, generated=made) for made in ("1", f"{time.time():.0f}"))
        self._number = itertools.count()
        self._instance = ""
        instance = self._with_good_report()
        self._receive(instance, "whole", good.archive, good.metadata)
        self._marts.refresh(instance)
        self._whole, self._others = self._rows(instance)
        if not self._whole or len(self._whole) != len(self._others):
            raise KnockemError("The good reports are not read.")

    def send(self, spoiled: Spoiled) -> None:
        """Send a spoiled report beside a good one, and look at what became of both. Raises KnockemError."""
        instance = self._instance = self._instance or self._with_good_report()
        try:
            arrived = self._receive(instance, f"spoiled-{next(self._number)}", spoiled.archive, spoiled.metadata)
            self._marts.refresh(instance)
            rows, others = self._rows(instance)
        except Exception as error:
            error.add_note(f"The archive: {spoiled.fault}")
            raise
        report = self._records.job_log_reports.get(arrived.id)
        self.became[report.state] += 1
        if others != self._others:
            raise KnockemError(f"{spoiled.fault}: rows of the good report beside it are others")
        is_loaded = report.state is ReportState.LOADED
        if is_loaded:
            self._instance = ""  # what comes next is to be told from it
        if spoiled.must in {Must.LOAD, Must.QUARANTINE} and is_loaded != (spoiled.must is Must.LOAD):
            raise KnockemError(f"{spoiled.fault}: it is {report.state}, {report.quarantine}")
        if is_loaded:
            if rows != self._whole and spoiled.must is not Must.NOT_CRASH:
                raise KnockemError(f"{spoiled.fault}: it is loaded, and its rows are others")
            if sum(report.rejected.values()) != len(report.rejects) or not all(each.cause for each in report.rejects):
                raise KnockemError(f"{spoiled.fault}: rows are left out, and it is not told why")
        elif rows or report.quarantine is None or not (report.quarantine.what and report.quarantine.remedy):
            raise KnockemError(f"{spoiled.fault}: it is {report.state}, with {len(rows)} rows, {report.quarantine}")

    def send_again(self) -> int:
        """Send the same, something else and overlapping reports in every order; return how many. Raises KnockemError.

        Of a job that several tell of, the latest is right, whichever came last.
        """
        return self._send_the_same() + sum(map(self._send_in_order, itertools.permutations(range(3))))

    def _send_the_same(self) -> int:
        good, other = self.good, self._beside[0]
        damaged = good.archive[:-1]
        instance = self._new_instance()
        self._receive(instance, "0", good.archive, good.metadata)
        self._marts.refresh(instance)
        marts = self._marts.in_use()[instance]
        again = [
            ("0", good.archive, good.metadata),
            ("0", other.archive, other.metadata),
            ("0", damaged, said_of(damaged, good.metadata)),
            ("0", good.archive, good.metadata + b" "),
            ("0", good.archive, b""),
            ("another name", good.archive, good.metadata),
        ]
        for name, archive, metadata in again:
            self._receive(instance, name.replace(" ", "-"), archive, metadata)
            self._marts.refresh(instance, again=name != "0")
            if self._rows(instance) != (self._whole, []):
                raise KnockemError(f"what was sent after a report as {name} changes its rows")
            if name == "0" and self._marts.in_use()[instance] != marts:
                raise KnockemError("what was sent after a report computes its marts anew")
        return len(again)

    def _send_in_order(self, order: Sequence[int]) -> int:
        instance = self._new_instance()
        jobs = self.good.called("jobs")
        for place, number in enumerate(order):
            told = re.sub(rb"^(\d+\t)", rb"\1report %d: " % number, self.good.members[jobs], flags=re.MULTILINE)
            archive = packed({**self.good.members, jobs: told}.items())
            metadata = said_of(archive, self.good.metadata, generated=str(number + 1))
            self._receive(instance, str(number), archive, metadata)
            self._marts.refresh(instance)
            latest = max(order[: place + 1])
            expected = [(id, f"report {latest}: {tool}", *rest) for id, tool, *rest in self._whole]
            if self._rows(instance) != (expected, []):
                raise KnockemError(f"reports in the order {order}: the jobs are not those of the latest, once each")
        return len(order)

    def _with_good_report(self) -> str:
        instance, number = self._new_instance(), next(self._number)
        other = self._beside[number % 2]
        self._receive(instance, "beside", other.archive, other.metadata)
        return instance

    def _new_instance(self) -> str:
        return local_instance(self._records, f"instance {next(self._number)}").id

    def _receive(self, instance: str, name: str, archive: bytes, metadata: bytes) -> ReportRecord:
        self._file.write_bytes(archive)
        return self._ledger.receive(instance, name, self._file, metadata)

    def _rows(self, instance: str) -> tuple[Rows, Rows]:
        """Return the rows of the jobs of a spoiled report, and of the good one; every mart has as many jobs."""
        with self._marts.opened([instance]) as opened:
            rows = opened.sql("SELECT * EXCLUDE instance FROM jobs ORDER BY id").fetchall()
            counted = opened.sql(JOBS_COUNTED).fetchall()[0]
        if set(counted) != {len(rows)}:
            raise KnockemError(f"marts of the same reports have {counted} jobs and {len(rows)}")
        return [row for row in rows if row[0] < OTHER_JOBS], [row for row in rows if row[0] >= OTHER_JOBS]


if __name__ == "__main__":
    command(run, about=__doc__, title="What holds while job logs arrive spoiled and their readers are killed")
