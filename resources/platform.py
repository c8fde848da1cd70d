"""Dagster's handle on the stores and the runtimes, and on the run of a submission.

What belongs here: opening and closing with Dagster's execution. What does not: anything the
command line needs too, which is in knockem_dagster.
"""

from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr

from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.platform import Platform
from knockem_dagster.settings import Settings, load_settings
from resources.run_processes import PROCESS_TAG, this_process


class PlatformResource(dg.ConfigurableResource):
    """The documents, the objects and the container runtimes, as the KNOCKEM_ settings name them."""

    home: str | None = Field(default=None, description="Folder of the embedded stores; default: KNOCKEM_HOME.")

    _platform: Platform | None = PrivateAttr(default=None)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        settings = load_settings()
        return settings if self.home is None else settings.model_copy(update={"home": Path(self.home)})

    def open(self) -> Platform:
        """Return the platform, opened at the first call."""
        if self._platform is None:
            self._platform = Platform(self.settings)
        return self._platform

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Let a run say which process it is."""
        if context.run is not None and context.instance is not None:
            context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: this_process()})

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Release the stores."""
        if self._platform is not None:
            self._platform.close()
            self._platform = None


class SubmissionRuns(dg.ConfigurableResource):
    """The run of the submission that a Dagster run works on: begun by its first asset, ended with the Dagster run."""

    platform: dg.ResourceDependency[PlatformResource]

    _run: SubmissionRun | None = PrivateAttr(default=None)

    def of(self, submission_id: str, *, name: str) -> SubmissionRun:
        """Return the run of this submission, taking its lease at the first call.

        Raises SubmissionBusy when another run holds the lease.
        """
        if self._run is None:
            run = SubmissionRun(self.platform.open(), submission_id, name=name)
            run.__enter__()
            self._run = run
        return self._run

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the run: remove its containers and give the lease back."""
        if self._run is not None:
            run, self._run = self._run, None
            run.__exit__(None, None, None)
