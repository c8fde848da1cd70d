"""What the failure handler of a job says when a try at it failed: another try, after a script of the user's if any."""

from __future__ import annotations

from dataclasses import replace

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.jobs.attempt_records import job_of
from knockem_dagster.jobs.commands.command import Command, CommandEnded
from knockem_dagster.jobs.commands.launcher import CommandLauncher
from knockem_dagster.jobs.worker_sources import WorkerQueue
from knockem_dagster.records.jobs import FailureRuleValue, JobRecord

TIMED_OUT_CODE, OUT_OF_MEMORY_CODE = 152, 137
"""The exit codes by which rules know what was ended for its time or its memory, as in torc."""
ATTEMPT = "TORC_ATTEMPT_ID"
"""The variable that tells a command which try at its job this is."""
_OF_SIGNALS = 128


def exit_code_of(ended: CommandEnded) -> int:
    """Return the exit code by which rules know how a command ended: a shell's for signals."""
    match ended.outcome:
        case Outcome.TIMED_OUT:
            return TIMED_OUT_CODE
        case Outcome.OUT_OF_MEMORY:
            return OUT_OF_MEMORY_CODE
        case _:
            return ended.exit_code if ended.exit_code >= 0 else _OF_SIGNALS - ended.exit_code


def rule_for(job: JobRecord, exit_code: int) -> FailureRuleValue | None:
    """Return the first rule for an exit code other than 0."""
    fitting = (rule for rule in job.failure_rules if rule.match_all_exit_codes or exit_code in rule.exit_codes)
    return next(fitting, None)


class Recovery:
    """Decides on another try at jobs that have a failure handler."""

    def __init__(self, queue: WorkerQueue, launcher: CommandLauncher) -> None:
        self._queue = queue
        self._launcher = launcher

    async def number_of_try(self, job: JobRecord) -> int:
        """Return which try at a job the next one is, from 1; those are not counted that were lost with their worker."""
        return 1 + await self._queue.retries(job.workflow_id, job_of(job.id))

    async def is_worth_another_try(self, job: JobRecord, command: Command, ended: CommandEnded, *, number: int) -> bool:
        """Tell whether a job is tried again after try `number` failed, having run what its rule says."""
        exit_code = exit_code_of(ended)
        rule = rule_for(job, exit_code)
        if rule is None or number > rule.max_retries:
            return False
        if rule.recovery_script is None:
            return True
        environment = {**command.environment, "TORC_RETURN_CODE": str(exit_code)}
        script = replace(command, arguments=("bash", "-c", rule.recovery_script), environment=environment)
        return (await self._launcher.run(script)).outcome is Outcome.SUCCEEDED
