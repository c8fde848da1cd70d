"""The table `study`: what was studied, with which settings, and what the study comes to; a row per fact.

Each fact has one declaration here: its name, its unit and what it means. Whoever fills the table gives values; the
methods paragraph reads them back, and takes its numbers from nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from knockem_dagster.reports.wording import number


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of the table: its name, the unit of its value ("" where there is none) and what it is."""

    name: str
    unit: str
    meaning: str


SUBMISSION = Fact("submission", "", "id of the submission")
ORGANISM = Fact("organism", "", "container image, or folder, of the organism")
IMAGE_DIGEST = Fact("organism: digest", "", "digest of the organism's image or folder")
RUNTIME = Fact("organism: runtime", "", "what ran the organism: containers (docker, podman, apptainer) or processes")
GENOME_DIGEST = Fact("genome: digest", "", "SHA-256 of the wild type's content")
SITES = Fact("genome: sites", "sites", "length of the genome")
SEED = Fact("seed", "", "what every random choice of the study follows from")
ASSAY_TYPES = Fact("assay types", "", "what the submission asked for")

VERSION = Fact("software: knockem_dagster", "", "version of knockem_dagster that made the estimates")
REVISION = Fact("software: revision", "", "commit of knockem_dagster that made the estimates")
ACCEPTED_BY = Fact("software: revision at submission", "", "commit of knockem_dagster that accepted the submission")
PYTHON = Fact("software: python", "", "version of Python that made the estimates")
NUMPY = Fact("software: numpy", "", "version of NumPy that made the estimates")
SCIPY = Fact("software: scipy", "", "version of SciPy that made the estimates")

RESOLUTION = Fact("option: resolution", "detection thresholds", "smallest effect that was to be found")
ERROR_RATE = Fact("option: error rate", "sites", "sites without effect that may be named, in expectation")
BUDGET = Fact("option: budget", "competitions", "competitions that might be asked for; no row where there was no limit")
TOLERATED = Fact("option: tolerated untested", "share", "share of competitions that might stay untestable")
SKELETONS = Fact("option: skeletons", "skeletons", "skeletons asked for")

NULL_COMPETITIONS = Fact("null: competitions", "competitions", "answered competitions of the wild type with itself")
NULL_MEAN = Fact("null: mean", "1/update", "mean of their scores")
NULL_SD = Fact("null: standard deviation", "1/update", "standard deviation of their scores; 0 without noise")
NULL_P = Fact("null: p value of symmetry", "probability", "two-sided p value that the mean is zero")
NULL_LEVEL = Fact("null: nominal rate", "probability", "nominal one-sided rate of detections without an effect")
THRESHOLD = Fact("null: detection threshold", "1/update", "least score that is a detection")
UNIT = Fact("unit of effects", "1/update", "score, above the mean, of an effect of one detection threshold")
LEVEL = Fact("level of intervals", "probability", "nominal coverage of intervals, but for the range of skeletons made")

DOSE_TESTS = Fact("weighing: dose tests", "competitions", "competitions that find the first dose")
LARGEST_SHARE = Fact("weighing: largest share", "share", "largest share of sites that one side may lack")
STANDARD_ERROR = Fact("weighing: standard error", "detection thresholds", "standard error of a site's effect, median")
SURELY_NAMED = Fact(
    "weighing: effect surely named",
    "detection thresholds",
    "effect with which any tested site not named would have been named, with the probability of the next row",
)
POWER = Fact("weighing: effect surely named, probability", "probability", "that a site of that effect is named")
SURE = Fact("weighing: probability of named sites", "probability", "what a named site's probability exceeds")
NAMED = Fact("weighing: sites named", "sites", "additive sites named")
SET_RESOLUTION = Fact("sets: resolution", "detection thresholds", "smallest cost of a set that was searched for")
SET_COMPETITIONS = Fact("sets: penalty competitions", "competitions", "competitions that measure what a set costs")
SETS_FOUND = Fact("sets: found", "sets", "redundant sets found")
SETS_COMPLETE = Fact("sets: searched to the end", "", "yes; no where the budget ended before")

PREFIX_MADE = Fact("prefix skeletons: made", "skeletons", "skeletons made by prefix search")
PREFIX_RESOLUTION = Fact(
    "prefix skeletons: resolution",
    "detection thresholds",
    "smallest effect that keeps a site, unless finer",
)

DISCOVERY_RATE = Fact("screen: false discovery rate", "probability", "at which the screen is controlled")
SMEAR = Fact("calibration: doses", "doses", "doses of the calibration, a knockout each")
TITRATION_DOSES = Fact("titration: doses", "doses", "doses of the titration")
TITRATION_REPLICATES = Fact("titration: replicates", "competitions", "random knockouts at each dose")
SKELETONS_MADE = Fact("skeletons: made", "skeletons", "skeletons made by greedy deletion")

ASKED = Fact("competitions", "competitions", "competitions asked for in all")
UNTESTABLE = Fact("competitions: untestable", "competitions", "of these, those that no attempt could complete")
UNTESTED = Fact("sites not tested", "sites", "sites of which no competition tells")
NOT_RESOLVED = Fact("sites not resolved", "sites", "tested sites of which nothing can be said at this resolution")


def stage(number: int) -> Fact:
    """Return the fact of what an earlier stage asked for; the first is number 1."""
    return Fact(f"stage {number}: options", "", "what was asked for before the study was extended")


def asked_by(assay_type: str) -> Fact:
    """Return the fact of how many competitions an assay asked for."""
    return Fact(f"competitions of {assay_type}", "competitions", "competitions that this assay asked for")


def untestable_of(assay_type: str) -> Fact:
    """Return the fact of how many competitions of an assay could not be completed."""
    return Fact(f"competitions of {assay_type}: untestable", "competitions", "of these, those never completed")


def study_table(values: Mapping[Fact, str | float | None]) -> pd.DataFrame:
    """Return the table `study`, a row per fact by name. What is None or NaN is not known and has no row.

    Numbers stand there in full, with the digits that give the same number back.
    """
    known = {fact: value for fact, value in values.items() if not pd.isna(value)}
    rows = [(fact.name, _text(value), fact.unit, fact.meaning) for fact, value in known.items()]
    return pd.DataFrame(sorted(rows), columns=["name", "value", "unit", "meaning"], dtype="str")


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, int | np.integer) else repr(float(value))


class StudyFacts:
    """The facts of a study, read back from its table."""

    def __init__(self, table: pd.DataFrame | None) -> None:
        self._values: dict[str, str] = {} if table is None else dict(zip(table["name"], table["value"], strict=True))

    def __contains__(self, fact: Fact) -> bool:
        return fact.name in self._values

    def text(self, fact: Fact) -> str:
        """Return the value as it stands in the table; empty where it is not known."""
        return self._values.get(fact.name, "")

    def number(self, fact: Fact) -> float:
        """Return the value as a number, NaN where it is not known. Raises ValueError when it is a word."""
        return float(self._values.get(fact.name, math.nan))

    def shown(self, fact: Fact) -> str:
        """Return a number as reports print it."""
        return number(self.number(fact))

    def percent(self, fact: Fact) -> str:
        """Return a share or a probability as a percentage."""
        return f"{number(100 * self.number(fact))}%"
