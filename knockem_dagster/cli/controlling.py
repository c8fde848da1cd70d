"""`cancel`, `resume`, `extend` and `purge`: changing what happens to a submission."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from knockem_dagster.assay_runs import control
from knockem_dagster.cli.service_logs import blot_out
from knockem_dagster.cli.submitting import finish
from knockem_dagster.cli.terminal import FAILED, AsJson, SubmissionId, aside, for_people, open_platform, short
from knockem_dagster.cli.up_lock import AlreadyUp, only_one
from knockem_dagster.cli.wording import counted
from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.opening import wipe_history
from knockem_dagster.stores.queue_server import remove_files

if TYPE_CHECKING:
    from knockem_dagster.assay_runs.removal import RemovalPlan
    from knockem_dagster.platform import Platform


def cancel(submission: SubmissionId) -> None:
    """Cancel a submission and end its containers. What is recorded is kept."""
    with open_platform() as platform:
        record = platform.records.submissions.resolve(submission)
        ended = asyncio.run(control.cancel(platform, record))
    id = short(record.id)
    _tell_unseen(ended)
    for_people().print(f"Submission {id} is canceled; {counted(ended.number, 'container')} of it ended here.")
    for_people().print(f"`./knockem resume {id}` goes on with it, `./knockem purge {id}` removes it.")


def resume(
    submission: SubmissionId,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until the submission is over, and run it if no daemon does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a failed, canceled or interrupted submission: recorded answers are kept."""
    with open_platform() as platform:
        record = control.resume(platform, platform.records.submissions.resolve(submission))
        finish(platform, record, wait=wait, as_json=as_json)


def extend(
    submission: SubmissionId,
    *,
    resolution: Annotated[
        float | None, typer.Option(help="A finer resolution: the smallest effect to be found, in detection thresholds.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="A larger budget: competitions in all, those so far included.")
    ] = None,
    skeletons: Annotated[int | None, typer.Option(help="More skeletons: in all, those so far included.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until the submission is over, and run it if no daemon does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask more of a submission that is over: no recorded competition is run again."""
    # Here, because importing pandas takes seconds.
    from knockem_dagster.assay_runs.extension import Extension, extend

    with open_platform() as platform:
        found = platform.records.submissions.resolve(submission)
        record = extend(platform, found, Extension(resolution=resolution, budget=budget, skeletons=skeletons))
        finish(platform, record, wait=wait, as_json=as_json)


def purge(
    submission: SubmissionId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a submission and everything that names it, from every store and from Dagster."""
    # Here, because importing Dagster and pandas takes seconds.
    from knockem_dagster import definitions
    from knockem_dagster.assay_runs import removal

    with open_platform() as platform:
        record = platform.records.submissions.resolve(submission)
        plan = removal.plan_removal(platform, record)
        dagster = definitions.forget_submission(platform.settings, record.id, dry_run=True)
        _tell(plan, dagster)
        if not yes and not typer.confirm("Remove all of this for ever?", err=True):
            aside().print("Nothing was removed.")
            raise typer.Exit(FAILED)
        removal.close_for_removal(platform, record)
        _tell_unseen(asyncio.run(control.end_containers(platform, record)))
        definitions.forget_submission(platform.settings, record.id, dry_run=False)
        removal.remove(platform, removal.plan_removal(platform, record))
        blot_out(platform.settings, record.id)
        _wipe_queue_file(platform)
    for_people().print(f"Submission {record.id} is removed.")


def _wipe_queue_file(platform: Platform) -> None:
    """Take what is no longer in the queue out of the file of the queue that `up` runs."""
    try:
        with only_one(platform.settings):
            remove_files(platform.settings, unreadable_only=False)
    except AlreadyUp:
        remove_files(platform.settings, unreadable_only=True)
        if platform.settings.queue_url is None:
            try:
                asyncio.run(wipe_history(platform))
            except QueueAway:
                aside().print("The queue does not answer; its file may name the submission until the next purge.")


def _tell_unseen(ended: control.EndedContainers) -> None:
    """Say why containers could not be looked for: those of a run elsewhere end with it."""
    if ended.unseen is not None:
        aside().print(f"Containers could not be looked for here: {ended.unseen}", markup=False, soft_wrap=True)


def _tell(plan: RemovalPlan, dagster: list[str]) -> None:
    console = for_people()
    console.print(f"Submission {plan.submission_id} has:")
    console.print("  documents")
    for collection, number in plan.documents.items():
        console.print(f"    {collection}: {number:,}")
    console.print("  objects" if plan.objects else "  no objects")
    for key in plan.objects:
        console.print(f"    {escape(key)}", soft_wrap=True)
    console.print("  in Dagster" if dagster else "  nothing in Dagster")
    for thing in dagster:
        console.print(f"    {escape(thing)}", soft_wrap=True)
    console.print("  and whatever containers are left of it")
