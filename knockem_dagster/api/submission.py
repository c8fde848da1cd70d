"""A submission from Python: `Submission.open(id)`, then tables with documented units; `compare` for several."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import pandas as pd

from knockem_dagster.assay_runs.comparison import compared
from knockem_dagster.assay_runs.competition_table import COMPETITION_COLUMNS, competition_frame, competition_pages
from knockem_dagster.assay_runs.places import place_of
from knockem_dagster.assay_runs.tables import read_table, report_key
from knockem_dagster.errors import KnockemError, NotFound
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.records.tables import TABLES, Column
from knockem_dagster.reports.comparison import COMPARISON, comparison_table
from knockem_dagster.settings import Settings, load_settings


class Submission:
    """A submission and its results. Every property reads what is recorded at that moment.

    Every DataFrame carries `attrs["units"]` and `attrs["meanings"]`, by column: units are "site",
    "1/update", "detection thresholds" and so on; "" where a column has none. Use as a context
    manager, or call `close`, to release the stores.
    """

    def __init__(self, platform: Platform, submission_id: str) -> None:
        """For `open`: takes over the platform and closes it."""
        self._platform = platform
        self.id = submission_id

    @classmethod
    def open(cls, id: str, settings: Settings | None = None) -> Submission:
        """Open a submission by its id or a unique beginning of it (at least 4 characters).

        `settings` default to those of the environment (KNOCKEM_HOME names the folder). Raises
        KnockemError when there is none, or several begin so.
        """
        platform = Platform(settings or load_settings())
        try:
            return cls(platform, platform.records.submissions.resolve(id).id)
        except KnockemError:
            platform.close()
            raise

    @classmethod
    def latest(cls, settings: Settings | None = None) -> Submission:
        """Open the newest submission that is completed. Raises NotFound when there is none."""
        platform = Platform(settings or load_settings())
        newest_first = platform.records.submissions.find({}, sort=[("datetime", -1)])
        completed = next((each.id for each in newest_first if each.state is State.COMPLETED), None)
        if completed is None:
            platform.close()
            raise NotFound(f"No submission in {platform.settings.folder} is completed; `./knockem demo` makes one.")
        return cls(platform, completed)

    def __enter__(self) -> Submission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the stores."""
        self._platform.close()

    def __repr__(self) -> str:
        record = self.record
        return f"Submission({self.id!r}, {record.state.value}, {record.container_image}, {record.num_sites} sites)"

    @property
    def record(self) -> SubmissionRecord:
        """What was asked, and how far it is."""
        return self._platform.records.submissions.get(self.id)

    @property
    def state(self) -> State:
        """How far the submission is."""
        return self.record.state

    @property
    def report_path(self) -> str:
        """Where the report is: a path for embedded objects, else a URL. Raises NotFound before it is made."""
        return place_of(self._platform, report_key(self.id), what=f"The report of submission {self.id}")

    @property
    def competitions(self) -> pd.DataFrame:
        """Every competition, a row each, sorted by assay, purpose, replicate and doses.

        Columns: id, assay, purpose, replicate, alpha_dose and beta_dose (sites), updates (updates),
        num_alpha and num_beta (individuals), score (1/update), outcome (answered or unanswered).
        A million rows take about half a gigabyte.
        """
        pages = list(competition_pages(self._platform.records, self.record))
        frame = pd.concat(pages, ignore_index=True) if pages else competition_frame([])
        keys = ["assay", "purpose", "replicate", "alpha_dose", "beta_dose", "id"]
        return _described(frame.sort_values(keys, ignore_index=True), COMPETITION_COLUMNS)

    @property
    def sites(self) -> pd.DataFrame:
        """Evidence per site: effect with its 95% interval (detection thresholds), share of skeletons keeping it."""
        return self.table("sites")

    @property
    def estimates(self) -> pd.DataFrame:
        """What was estimated: value and interval (in the quantity's unit), nominal level, method, n (competitions)."""
        return self.table("estimates")

    def table(self, name: str) -> pd.DataFrame:
        """Return one of the submission's tables; `records.tables.TABLES` lists them with columns and units.

        Raises NotFound for a name that is none, or when the table has not been made.
        """
        if name not in TABLES:
            raise NotFound(f"There is no table {name!r}; the tables are {', '.join(TABLES)}.")
        frame = read_table(self._platform.objects, self.id, name)
        if frame is None:
            raise NotFound(
                f"Submission {self.id} ({self.state.value}) has no table {name!r}: "
                "its assay was not asked for, or is not done."
            )
        return _described(frame, TABLES[name].columns)


def compare(ids: Sequence[str], settings: Settings | None = None) -> pd.DataFrame:
    """Return the estimates of several submissions: for each quantity and method a row per submission, as named.

    Ids and settings are those of `Submission.open`. Columns: quantity, method, drawn, submission, organism, genome,
    sites, state, distinction, outcome, value, low, high, unit, level, n; what a submission lacks has a row that says
    so in `outcome`. Raises KnockemError for fewer than two submissions, the same one twice, or one without estimates.
    """
    platform = Platform(settings or load_settings())
    try:
        records = [platform.records.submissions.resolve(id) for id in ids]
        table = comparison_table([compared(platform, record) for record in records])
    finally:
        platform.close()
    return _described(table, COMPARISON.columns)


def _described(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    frame.attrs["units"] = {column.name: column.unit for column in columns}
    frame.attrs["meanings"] = {column.name: column.meaning for column in columns}
    return frame
