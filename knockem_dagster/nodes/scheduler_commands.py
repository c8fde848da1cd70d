"""Running the commands of a scheduler on this machine: bounded in time, and their programs found beforehand."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from knockem_dagster.nodes.schedulers import ANSWER_SECONDS, SchedulerAway


def run_command(
    *command: str,
    text: str = "",
    environment: Mapping[str, str] | None = None,
    seconds: float = ANSWER_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a command with a text on its input and more in its environment; return what it says, whatever that is.

    Raises SchedulerAway where there is no such command, and when it does not end in time.
    """
    program = shutil.which(command[0])  # before `environment` can say where programs are
    if program is None:
        raise SchedulerAway(f"{command[0]} is not installed on this machine")
    try:
        return subprocess.run(
            [program, *command[1:]],
            input=text,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            cwd="/",
        )
    except OSError as error:
        raise SchedulerAway(f"{command[0]} cannot be run on this machine: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerAway(f"{command[0]} did not answer within {seconds:.0f} s") from error
