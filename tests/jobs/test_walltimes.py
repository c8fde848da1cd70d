"""Times as SLURM reads and writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.jobs.walltimes import seconds_of, seconds_of_walltime, walltime_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("04:00:00", 14400),
        ("2-00:30:00", 174600),
        ("1-12", 129600),
        ("1-12:30", 131400),
        (" 30 ", 1800),
    ],
)
def test_the_forms_of_sbatch_are_read(text: str, seconds: int) -> None:
    assert seconds_of_walltime(text) == seconds


@pytest.mark.parametrize("text", ["", "UNLIMITED", "1h", "-5", "1:2:3:4", "1-", "٣", "9" * 50])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MM:SS"):
        seconds_of_walltime(text)


def test_plain_numbers_are_seconds_for_people_and_minutes_for_slurm() -> None:
    assert (seconds_of("90"), seconds_of_walltime("90")) == (90, 5400)


@given(st.integers(0, 400 * 86400))
def test_what_is_written_is_read_again_rounded_up_to_a_minute(seconds: int) -> None:
    assert seconds <= seconds_of_walltime(walltime_of(seconds)) < seconds + 60
