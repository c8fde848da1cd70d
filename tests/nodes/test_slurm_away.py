"""A real SLURM whose controller was killed: that is told from a refusal, and passes when it is back."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from knockem_dagster.nodes.opening import LAUNCHER
from knockem_dagster.nodes.schedulers import NodeOrder, NodeRefused, SchedulerAway
from knockem_dagster.nodes.slurm import Slurm
from tests.services.pools import slurm_pool
from tests.services.slurm import needs_slurm, running_slurm

pytestmark = needs_slurm()
ORDER = NodeOrder("knockem-1", {})


def controller_of(configuration: Path) -> psutil.Process:
    """Return the controller that runs by this configuration."""
    [found] = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "slurmctld" and str(configuration) in process.info["cmdline"]
    ]
    return found


def test_a_controller_that_is_away_has_refused_nothing() -> None:
    slurm = Slurm(slurm_pool(partition="nowhere"), launcher=LAUNCHER)
    with running_slurm(message_timeout=2) as configuration:
        with pytest.raises(NodeRefused, match=r"(?i)invalid partition"):
            slurm.ask(ORDER)
        controller = controller_of(configuration)
        controller.kill()
        controller.wait()
        for ask in (lambda: slurm.ask(ORDER), lambda: slurm.look({}), lambda: slurm.release(["1"])):
            with pytest.raises(SchedulerAway, match=r"(?i)contact slurm controller|did not answer"):
                ask()
