"""The apptainer runtime."""

from knockem_dagster.containers.processes import ProcessRuntime


class ApptainerRuntime(ProcessRuntime):
    def __init__(self):
        super().__init__(())


def has_apptainer() -> bool:
    return False
