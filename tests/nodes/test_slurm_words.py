"""What SLURM's commands say, where a cluster says it seldom: their words are written by hand here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from knockem_dagster.nodes.opening import scheduler_of
from knockem_dagster.nodes.schedulers import NodeOrder, NodeRefused, SchedulerAway
from knockem_dagster.records.nodes import NodeState
from tests.services.pools import slurm_pool

Say = Callable[[str, str], None]
REFUSAL = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Let commands do what a line of shell says; there are no others."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(command: str, line: str) -> None:
        path = tmp_path / command
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    return write


def test_a_refusal_is_told_whole(say: Say) -> None:
    say("sbatch", f"echo '{REFUSAL}' >&2; exit 1")
    say("squeue", "true")
    with pytest.raises(NodeRefused, match="combination specified"):
        scheduler_of(slurm_pool()).ask(NodeOrder("knockem-1", {}))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("CANCELLED by 1000", "CANCELLED by 1000"),
        ("COMPLETED", "COMPLETED"),
        ("NODE_FAIL", "NODE_FAIL, exit code 1:0"),
    ],
)
def test_an_end_is_told_in_slurms_words(say: Say, state: str, reason: str) -> None:
    say("squeue", "true")
    say("sacct", f"echo '7|knockem-1|{state}|1:0|2026-01-01T10:00:00|2026-01-01T11:00:00'")
    sight = scheduler_of(slurm_pool()).look({"knockem-1": "7"})["knockem-1"]
    assert (sight.state, sight.reason, sight.is_forgotten) == (NodeState.ENDED, reason, False)


def test_what_slurm_has_forgotten_is_forgotten(say: Say) -> None:
    say("squeue", "true")
    say("sacct", "exit 1")
    say("scontrol", "exit 1")
    assert scheduler_of(slurm_pool()).look({"knockem-1": "7"})["knockem-1"].is_forgotten


def test_commands_that_are_not_there_are_named(say: Say) -> None:
    with pytest.raises(SchedulerAway, match="squeue is not installed"):
        scheduler_of(slurm_pool()).look({"knockem-1": "7"})
