"""Nodes of a SLURM cluster: jobs of `sbatch`, looked after by `squeue` and `sacct`, or `scontrol` where that is off.

The token of a worker goes to SLURM within the job's script, which comes by a pipe: only its owner and SLURM's
administrators can read it there.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from knockem_dagster.jobs.walltimes import walltime_of
from knockem_dagster.nodes.node_pools import LEAVING_SECONDS, SlurmPool
from knockem_dagster.nodes.scheduler_commands import run_command
from knockem_dagster.nodes.schedulers import NodeOrder, NodeRefused, NodeSight, SchedulerAway, reason_of
from knockem_dagster.records.nodes import NodeState

_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_THERE = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"}
_MOST_LAST_WORDS = 400
_OF_SACCT = {
    "JobId": "JobIDRaw",
    "JobName": "JobName",
    "JobState": "State",
    "ExitCode": "ExitCode",
    "StartTime": "Start",
    "EndTime": "End",
}
"""What `scontrol` calls a field, and what `sacct` calls it."""


class Slurm:
    """A SLURM cluster, as its commands on this machine show it: a Scheduler."""

    def __init__(self, pool: SlurmPool, *, launcher: Path) -> None:
        """`launcher`: what stands for `./knockem` on a node where the pool names nothing."""
        self._pool = pool
        self._command = pool.command or (str(launcher),)

    def ask(self, order: NodeOrder) -> str:
        """Hand a job to `sbatch`."""
        answer = run_command("sbatch", *self._options(order), text=self._script(order))
        if answer.returncode:
            self._in_slurm()  # sbatch alone does not tell a controller that is away from one that refuses
            raise NodeRefused(reason_of(answer.stderr) or f"sbatch ended with {answer.returncode}")
        return answer.stdout.strip().partition(";")[0]

    def look(self, nodes: Mapping[str, str | None]) -> Mapping[str, NodeSight]:
        """Ask `squeue` for what is there, and the history for what is not."""
        seen: dict[str, NodeSight] = {}
        for line in self._in_slurm():
            name, *told = line.strip().split("|", 4)
            if name in nodes and len(told) == 4:
                id, state, started, reason = told
                seen[name] = NodeSight(id, _state_of(state), "" if reason == "None" else reason, _time(started))
        gone = {id: name for name, id in nodes.items() if id is not None and name not in seen}
        for id, sight in self._history(sorted(gone)):
            seen[gone[id]] = sight
        return seen

    def release(self, external_ids: Collection[str]) -> None:
        """Cancel jobs: `scancel` ends what waits, and tells workers to end."""
        if external_ids:
            answer = run_command("scancel", *sorted(external_ids))
            if answer.returncode:
                raise SchedulerAway(reason_of("scancel", answer.stderr))

    def preview(self, order: NodeOrder) -> str:
        """Return the call of `sbatch` and the script."""
        return f"{shlex.join(['sbatch', *self._options(order)])} <<'EOF'\n{self._script(order)}EOF"

    def _in_slurm(self) -> Sequence[str]:
        """Return what `squeue` tells of our jobs, a line of each. Raises SchedulerAway."""
        answer = run_command("squeue", "--me", "--noheader", "--format=%j|%i|%T|%S|%r")
        if answer.returncode:
            raise SchedulerAway(reason_of("squeue", answer.stderr))
        return answer.stdout.splitlines()

    def _options(self, order: NodeOrder) -> list[str]:
        pool = self._pool
        chosen = {
            "job-name": order.name,
            "time": walltime_of(pool.walltime),
            "nodes": 1,
            "ntasks": 1,
            "cpus-per-task": -int(-pool.cpus // 1),
            "mem": f"{pool.memory}M",
            "account": pool.account,
            "partition": pool.partition,
            "qos": pool.qos,
            "gres": pool.gres or (f"gpu:{pool.gpus}" if pool.gpus else None),
            "constraint": pool.constraint,
            "tmp": pool.tmp,
            "signal": f"B:TERM@{LEAVING_SECONDS}",
            "chdir": pool.folder,
            "output": "/dev/null" if pool.folder is None else str(self._log(order.name)),
        }
        options = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
        # The last of two like options counts: what a user adds changes none of ours.
        return [*pool.extra, "--parsable", "--no-requeue", "--export=NIL", *options]

    def _script(self, order: NodeOrder) -> str:
        pool = self._pool
        exports = [f"export {name}={shlex.quote(value)}" for name, value in order.environment.items()]
        worker = shlex.join([*self._command, *pool.worker_arguments()])
        # A process that bash has become is the one that SLURM signals.
        return "\n".join(
            [
                "#!/bin/bash -l",
                "SECONDS=0",
                "export HOME",
                *exports,
                *pool.setup,
                f"exec {worker} --time-left $(({pool.walltime - LEAVING_SECONDS} - SECONDS))",
                "",
            ]
        )

    def _log(self, name: str) -> Path:
        return Path(self._pool.folder or ".", f"{name}.log")

    def _history(self, ids: Sequence[str]) -> Iterator[tuple[str, NodeSight]]:
        """Yield what became of jobs: by `sacct` where accounting is on, else by `scontrol`, which forgets them soon."""
        if not ids:
            return
        options = ("--noheader", "--parsable2", "--allocations", f"--format={','.join(_OF_SACCT.values())}")
        answer = run_command("sacct", *options, f"--jobs={','.join(ids)}")
        told: dict[str, dict[str, str]] = {}
        for line in answer.stdout.splitlines() if not answer.returncode else ():
            values = line.strip().split("|")
            if len(values) == len(_OF_SACCT):
                told[values[0]] = dict(zip(_OF_SACCT, values, strict=True))
        for id in ids:
            yield id, self._over(id, told.get(id) or _as_scontrol_tells(id))

    def _over(self, id: str, told: Mapping[str, str]) -> NodeSight:
        if not told:
            return NodeSight(id, NodeState.ENDED, "SLURM has forgotten it", is_forgotten=True)
        state = told["JobState"].split(maxsplit=1)[0]  # "CANCELLED by 1000"
        known = _state_of(state)
        started, ended = _time(told.get("StartTime", "")), _time(told.get("EndTime", ""))
        if known is not NodeState.ENDED:
            return NodeSight(id, known, "", started)
        failed = state not in ("COMPLETED", "CANCELLED", "TIMEOUT")
        more = f", exit code {told['ExitCode']}{self._last_words(told['JobName'])}" if failed else ""
        return NodeSight(id, known, told["JobState"] + more, started, ended)

    def _last_words(self, name: str) -> str:
        if self._pool.folder is None:
            return ""
        try:
            words = self._log(name).read_bytes()[-_MOST_LAST_WORDS:].decode(errors="replace")
        except OSError:
            return ""
        return f": {' '.join(words.split())}" if words.strip() else ""


def _as_scontrol_tells(id: str) -> dict[str, str]:
    """Return what `scontrol` tells of a job; nothing once it has forgotten the job."""
    answer = run_command("scontrol", "show", "job", "--oneliner", id)
    pairs = (each.partition("=") for each in answer.stdout.split()) if not answer.returncode else ()
    return {name: value for name, _, value in pairs}


def _state_of(word: str) -> NodeState:
    if word in _WAITING:
        return NodeState.PENDING
    return NodeState.RUNNING if word in _THERE else NodeState.ENDED


def _time(text: str) -> datetime | None:
    """Read a time of SLURM's, which is local; None for "N/A" and "Unknown"."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        return None
