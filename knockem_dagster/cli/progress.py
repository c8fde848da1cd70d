"""Progress of a submission on standard error: read from the record, redrawn at least every two seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from knockem_dagster.assay_runs.status import expected_total, is_leased
from knockem_dagster.cli.terminal import aside
from knockem_dagster.cli.wording import clock
from knockem_dagster.errors import StoreError
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import SubmissionRecord

LOOK_SECONDS = 0.5
"""How often the record is read."""
LINE_SECONDS = 2.0
"""How often a line is written where nothing can be redrawn; later ones are a thirtieth of the time so far apart."""
_RATE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a submission at one moment. `rate` is competitions per second over the last 20 s."""

    what: str
    done: int
    total: int
    rate: float | None

    @property
    def numbers(self) -> str:
        """Done, total, rate, time left, as far as known."""
        text = f"{self.done:,} of about {self.total:,} competitions"
        if self.rate:
            left = max(0, self.total - self.done) / self.rate
            text += f", {self.rate:,.0f}/s" if self.rate >= 10 else f", {self.rate:.1f}/s"
            text += f", about {clock(left)} left"
        return text


class Observer:
    """Turns readings of a submission into sights, remembering as much of the past as the rate needs."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, int]] = deque()

    def see(self, submission: SubmissionRecord, moment: float) -> Sight:
        """Take a reading at a moment in seconds and return the sight."""
        done = submission.counters.submission_num_completed_competitions
        if self._past and done < self._past[-1][1]:
            self._past.clear()  # an interrupted assay counts its recalled answers again
        self._past.append((moment, done))
        while len(self._past) > 2 and moment - self._past[0][0] > _RATE_SECONDS:
            self._past.popleft()
        first_moment, first_done = self._past[0]
        seconds = moment - first_moment
        rate = (done - first_done) / seconds if seconds >= 1 and done > first_done else None
        return Sight(_what(submission), done, expected_total(submission), rate)


class ProgressView:
    """Shows a submission's progress while the `with` block lasts, from a thread of its own."""

    def __init__(self, platform: Platform, submission_id: str) -> None:
        self._platform = platform
        self._id = submission_id
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> ProgressView:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        console = aside()
        if console.is_terminal:
            self._redraw(console)
        else:
            self._write_lines(console)

    def _redraw(self, console: Console) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[numbers]}"))
        with Progress(*columns, console=console, transient=True) as progress:
            task: TaskID = progress.add_task("starting", total=None, numbers="")
            observer = Observer()
            while not self._over.wait(LOOK_SECONDS):
                sight = self._look(observer)
                if sight is not None:
                    progress.update(
                        task,
                        description=sight.what,
                        total=max(1, sight.total),
                        completed=sight.done,
                        numbers=sight.numbers,
                    )

    def _write_lines(self, console: Console) -> None:
        observer, began = Observer(), time.monotonic()
        interval = LINE_SECONDS
        while not self._over.wait(interval):
            sight = self._look(observer)
            elapsed = time.monotonic() - began
            if sight is not None:
                console.print(f"{sight.what}: {sight.numbers} ({clock(elapsed)})", markup=False, soft_wrap=True)
            interval = max(LINE_SECONDS, elapsed / 30)

    def _look(self, observer: Observer) -> Sight | None:
        """Read the record; None while the store is too busy to be read, which the next look makes up for."""
        try:
            submission = self._platform.records.submissions.find_one(self._id)
        except StoreError:
            return None
        return None if submission is None else observer.see(submission, time.monotonic())


def _what(submission: SubmissionRecord) -> str:
    if submission.state.is_final:
        return submission.state.value
    if not is_leased(submission):
        return "starting"
    counters = submission.counters
    done = counters.submission_num_completed_assays
    total = done + counters.submission_num_active_assays + counters.submission_num_pending_assays
    return f"assay {min(done + 1, total)} of {total}" if total else "running"
