"""One run of one submission: it holds the lease, keeps containers warm from assay to assay, and ends cleanly.

The assays are asynchronous and their callers (Dagster assets) are not: the run has an event loop
in a thread of its own, in which the worker lives for as long as the run.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from knockem_dagster.assay_runs.compete import AssayRun, Progress
from knockem_dagster.assay_runs.ledger import Ledger
from knockem_dagster.assay_runs.workforce import Workforce, hire
from knockem_dagster.errors import KnockemError, StoreError, SubmissionBusy, SubmissionCanceled
from knockem_dagster.jobs.organisms import check_organism
from knockem_dagster.jobs.queue import AssayCounts
from knockem_dagster.knockout.competitions import Compete
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayType, assay_id, with_needs
from knockem_dagster.records.submissions import State
from knockem_dagster.stores.documents import Patch

BEAT_SECONDS = 2.0
"""How often the lease is renewed and cancellation noticed."""

FIRST_PROGRESS_SECONDS = 10.0

T = TypeVar("T")


class SubmissionRun:
    """A run of a submission. Use as a context manager.

    Raises SubmissionBusy on entry when another run holds the lease, or when the submission is over.
    """

    def __init__(self, platform: Platform, submission_id: str, *, name: str) -> None:
        self.platform = platform
        self.records = platform.records
        self.objects = platform.objects
        self._id = submission_id
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{name}"
        self._failure: str | None = None
        self._workforce: Workforce | None = None
        self._in_work: int | None = None
        self._heart: asyncio.Task[None] | None = None
        self.progress: Progress = Progress()
        self._done_before = 0
        self._untestable_before = 0
        self.on_progress: Callable[[str], object] = lambda text: None

    def __enter__(self) -> SubmissionRun:
        found = self.records.submissions.get(self._id)
        self.genome = self.records.genomes.get(found.genome_id)
        seconds = self.platform.settings.lease_seconds
        submission = self.records.submissions.acquire_lease(self._id, self._owner, seconds)
        if submission is None:
            raise self._busy()
        done = submission.counters.submission_num_completed_competitions
        self.records.submissions.note_start(self._id, completed_before=done)
        self.submission = submission
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"submission {self._id[:8]}", daemon=True)
        self._thread.start()
        self._heart = asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result()
        return self

    def _busy(self) -> SubmissionBusy:
        current = self.records.submissions.get(self._id)
        if current.state.is_final:
            return SubmissionBusy(
                f"Submission {self._id} is {current.state.value} already; there is nothing to run. "
                f"One that failed or was canceled `./knockem resume {self._id[:8]}` opens again; `./knockem extend` "
                "goes on with any, asking for more."
            )
        return SubmissionBusy(
            f"Another run ({current.lease.owner}) works on submission {self._id}; this one ends. "
            "If that run has died, its lease lapses within seconds and `./knockem up` goes on with it."
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.records.submissions.release_lease(self._id, self._owner)

    def perform(self, assay_type: AssayType, assay: Callable[[Compete], Awaitable[T]]) -> T:
        """Run an assay to its end on the durable `compete`. Blocks; raises what the assay raises.

        Raises SubmissionBusy once the submission has failed.
        """
        if self._failure is not None:
            raise SubmissionBusy(f"Submission {self._id} has failed already, so nothing more is asked: {self._failure}")
        try:
            return self._wait(self._perform(assay_type, assay))
        finally:
            self.report_progress()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the run's event loop and wait for it."""
        return self._wait(work)

    def complete(self) -> None:
        """Tell that every requested assay has its result and the report exists.

        Raises SubmissionBusy when the submission is no longer this run's to complete.
        """
        results = list(self.records.assay_results.find({"submissionId": self._id}))
        self.note_assays(
            completed=len(results),
            active=0,
            pending=0,
            competitions=sum(result.num_competitions for result in results),
            untestable=sum(result.num_untestable for result in results),
        )
        if not self.records.submissions.move(self._id, State.COMPLETED, sources=(State.RUNNING,), owner=self._owner):
            raise self._busy()

    def fail(self, reason: str) -> None:
        """Tell that the submission cannot be completed, and why; nothing happens if another run has it by now."""
        self._failure = reason
        self.records.submissions.move(
            self._id, State.FAILED, reason=reason, sources=(State.RUNNING,), owner=self._owner
        )

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work in the loop, telling `on_progress` at doubling intervals how far it is."""
        future = asyncio.run_coroutine_threadsafe(self._guarded(work), self._loop)
        interval = FIRST_PROGRESS_SECONDS
        try:
            while True:
                try:
                    return future.result(timeout=interval)
                except TimeoutError:
                    if future.done():
                        return future.result()
                    interval *= 2
                    progress = self.progress
                    with_workers = "" if self._in_work is None else f", {self._in_work:,} with workers"
                    self.on_progress(
                        f"{progress.answered:,} competitions answered, {progress.untestable:,} untestable{with_workers}"
                    )
        except BaseException:
            future.cancel()
            raise

    async def _guarded(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work beside the heart and the worker: when one of them fails, the work is over."""
        try:
            async with asyncio.TaskGroup() as group:
                worker = None if self._workforce is None else self._workforce.task
                guards = [group.create_task(_follow(task)) for task in (self._heart, worker) if task is not None]
                result = await work
                for guard in guards:
                    guard.cancel()
            return result
        except BaseExceptionGroup as several:
            raise _first_of(several) from several

    async def check_image(self) -> None:
        """Make sure that the image is the one that was accepted, unless workers do. Raises ContainerError."""
        if not self.platform.settings.leave_to_workers:
            await check_organism(self.platform, self.submission)

    async def _perform(self, assay_type: AssayType, assay: Callable[[Compete], Awaitable[T]]) -> T:
        submission = self.submission
        record = await asyncio.to_thread(self.records.assays.get, assay_id(submission.id, assay_type))
        workforce = await self._working()
        await workforce.note_assays(await asyncio.to_thread(self._assay_counts, record.id))
        found = await asyncio.to_thread(self.records.assay_results.find_one, record.id)
        settled = "" if found is None else found.datetime
        under_way = workforce.under_way
        ledger = Ledger(self.records, submission, record, self.genome, under_way=under_way, settled=settled)
        run = AssayRun(ledger, workforce.source, max_active=submission.max_active, max_fail=submission.max_fail)
        run.progress.held = await asyncio.to_thread(ledger.held)
        self.progress = run.progress
        try:
            async with asyncio.TaskGroup() as group:
                guard = group.create_task(_follow(workforce.task))
                async with run:
                    result = await assay(run.compete)
                guard.cancel()
        except BaseException:
            await self._stop_working()  # attempts still under way must not be heard by the next assay
            raise
        return result

    def _assay_counts(self, active: str) -> AssayCounts:
        """Return how far the submission is, for the queue."""
        found = self.records.assay_results.find({"submissionId": self._id})
        done = {result.id for result in found if self.submission.stands(result)}
        wanted = {assay_id(self._id, each) for each in with_needs(frozenset(self.submission.assay_types))}
        return AssayCounts(
            pending=sorted(wanted - done - {active}),
            active=[active],
            completed=len(done),
            completed_competitions=self._done_before,
        )

    async def _working(self) -> Workforce:
        """Return who works for this run, hired at the first call."""
        if self._workforce is None:
            self._workforce = await hire(self.platform, self.submission, self.genome)
        return self._workforce

    async def _begin(self) -> asyncio.Task[None]:
        return self._loop.create_task(self._beat())

    async def _beat(self) -> None:
        """Renew the lease, report progress, and end the run when it was canceled or lost the lease.

        A store that is away for a moment is asked again for as long as the lease lasts.
        """
        seconds = self.platform.settings.lease_seconds
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(min(BEAT_SECONDS, seconds / 4))
            try:
                held = await asyncio.to_thread(self.records.submissions.acquire_lease, self._id, self._owner, seconds)
                if held is None:
                    raise await asyncio.to_thread(self._reason_to_end)
                renewed = time.monotonic()
                self._in_work = None if self._workforce is None else await self._workforce.in_work()
                await asyncio.to_thread(self.report_progress)
            except StoreError:
                if time.monotonic() - renewed > seconds:
                    raise

    def _reason_to_end(self) -> KnockemError:
        """Return why the lease cannot be renewed."""
        current = self.records.submissions.find_one(self._id)
        if current is None or current.state is State.CANCELED:
            return SubmissionCanceled(f"Submission {self._id} was canceled.")
        return self._busy()

    def report_progress(self) -> None:
        """Write the progress counters to the submission."""
        progress = self.progress
        most = min(self.submission.max_active, progress.asked - progress.answered)
        active = most if self._in_work is None else min(most, self._in_work)
        counters = {
            "counters.submissionNumCompletedCompetitions": self._done_before + progress.num_settled,
            "counters.submissionNumActiveCompetitions": active,
            "counters.submissionNumPendingCompetitions": progress.asked - progress.answered - active,
            "untestableCompetitions": self._untestable_before + progress.untestable,
        }
        self.records.submissions.patch(self._id, Patch(set=counters))

    def note_assays(self, *, completed: int, active: int, pending: int, competitions: int, untestable: int) -> None:
        """Set the counters of assays, and the numbers of competitions that the completed ones made and gave up."""
        self._done_before = competitions
        self._untestable_before = untestable
        self.progress = Progress()
        counters = {
            "counters.submissionNumCompletedAssays": completed,
            "counters.submissionNumActiveAssays": active,
            "counters.submissionNumPendingAssays": pending,
        }
        self.records.submissions.patch(self._id, Patch(set=counters))
        self.report_progress()

    async def _stop_working(self) -> None:
        """End the worker with its containers; the next assay gets a new one."""
        workforce, self._workforce = self._workforce, None
        if workforce is not None:
            try:
                current = await asyncio.to_thread(self.records.submissions.find_one, self._id)
                is_over = current is None or current.state.is_final
            except StoreError:
                is_over = False  # the next run decides
            await workforce.stop(forget=is_over)

    async def _finish(self) -> None:
        await self._stop_working()
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
        await self._loop.shutdown_default_executor()


async def _follow(task: asyncio.Task[None]) -> None:
    """Fail when the task fails; being canceled leaves the task alone."""
    await asyncio.shield(task)


def _first_of(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what matters of several errors at once: one of ours if there is one."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [several]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((error for error in leaves if isinstance(error, KnockemError)), leaves[0])
