"""What weighing tells of every site: its effect with an interval, and whether it may be called additive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.knockout.assays.frames import checked_frame, typed_frame
from knockem_dagster.knockout.estimators.residuals import ResidualSummary

COLUMNS = {
    "site": "int64",
    "effect": "float64",
    "low": "float64",
    "high": "float64",
    "error": "float64",
    "probability": "float64",
    "tested": "bool",
}
SORT_KEY = ("site",)

_NUMBERS = {
    "angle_sd": "sd of a score's angle",
    "drift": "one threshold as a drift",
    "unit_error": "relative error of a threshold",
    "num_competitions": "competitions of weighing",
    "unit": "one threshold (1/update)",
}
"""What belongs to the result beside its table, and how it is called where people read it."""
_RESIDUALS = {
    "n": "residuals",
    "upper_tail": "upper tail of residuals (1: normal)",
    "lower_tail": "lower tail of residuals (1: normal)",
    "correlation": "correlation of successive residuals",
    "growth": "growth of variance with the effect",
}
"""The same of what the fit leaves over."""
LETHAL = 2.0
"""A site that costs so much (thresholds) decides almost every competition in which one side lacks it."""
POWER_DEVIATES = 2.0
"""So far beyond what chance allows lies an effect that is named with probability .977."""
SURE = 0.99
"""A site is named additive only when its probability of having an effect is larger."""
_LEVEL = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class SiteWeights:
    """Every site, one row each (COLUMNS): effect with its 95% interval and standard error, in thresholds.

    `probability` is that of having an effect at all, which rests on what effects of other sites are like. An untested
    site has neither. `angle_sd` is the noise of a competition as all of them showed it, 0 for an organism without;
    `drift` what one threshold is on the scale of drifts, and `unit_error` its relative standard error;
    `num_competitions` what was asked for; `unit` the score of one threshold (1/update); `residuals` what the fit left
    over, where there is noise.
    """

    table: pd.DataFrame
    angle_sd: float
    drift: float
    unit_error: float
    num_competitions: int
    unit: float
    residuals: ResidualSummary | None = None

    @classmethod
    def of(
        cls,
        effects: NDArray[np.float64],
        errors: NDArray[np.float64],
        probabilities: NDArray[np.float64],
        *,
        angle_sd: float,
        drift: float,
        unit_error: float,
        num_competitions: int,
        unit: float,
        residuals: ResidualSummary | None = None,
    ) -> SiteWeights:
        """Return the weights of sites with these effects and standard errors (thresholds), shape (num_sites,).

        An infinite standard error means that a site was not tested.
        """
        tested = np.isfinite(errors)
        reach = float(stats.norm.isf((1 - _LEVEL) / 2)) * np.where(tested, errors, np.nan)
        table = typed_frame(
            COLUMNS,
            {
                "site": range(effects.size),
                "effect": np.where(tested, effects, np.nan),
                "low": effects - reach,
                "high": effects + reach,
                "error": np.where(tested, errors, np.nan),
                "probability": np.where(tested, probabilities, np.nan),
                "tested": tested,
            },
            sort_by=SORT_KEY,
        )
        return cls(table, angle_sd, drift, unit_error, num_competitions, unit, residuals)

    @classmethod
    def from_table(cls, table: pd.DataFrame, numbers: Mapping[str, float | None]) -> SiteWeights:
        """Rebuild the result from its stored table and `numbers`. Raises ValueError when columns are missing."""
        recorded = {name: numbers[words] for name, words in _NUMBERS.items()}
        known = {name: math.nan if value is None else value for name, value in recorded.items()}
        left = {name: value for name, words in _RESIDUALS.items() if (value := numbers.get(words)) is not None}
        return cls(
            checked_frame(COLUMNS, table, sort_by=SORT_KEY),
            angle_sd=known["angle_sd"],
            drift=known["drift"],
            unit_error=known["unit_error"],
            num_competitions=int(known["num_competitions"]),
            unit=known["unit"],
            residuals=ResidualSummary(int(left.pop("n")), **left) if len(left) == len(_RESIDUALS) else None,
        )

    @property
    def numbers(self) -> dict[str, float | None]:
        """Return what belongs to the result beside its table; None for what is not known."""
        values = {words: float(getattr(self, name)) for name, words in _NUMBERS.items()}
        if self.residuals is not None:
            values |= {words: float(getattr(self.residuals, name)) for name, words in _RESIDUALS.items()}
        return {words: None if math.isnan(value) else value for words, value in values.items()}

    @property
    def is_exact(self) -> bool:
        """Tell whether the effects are known without noise."""
        return self.angle_sd == 0

    @property
    def tested(self) -> pd.DataFrame:
        """Return the rows of the tested sites."""
        return self.table[self.table["tested"]]

    @property
    def num_untested(self) -> int:
        """Return of how many sites no competition tells."""
        return len(self.table) - len(self.tested)

    @property
    def error(self) -> float:
        """Return the standard error (thresholds) that most tested sites have; 0 without noise, NaN without sites."""
        errors = self.tested["error"]
        return float(errors.median()) if len(errors) else float("nan")

    def additive(self, error_rate: float) -> dict[int, float]:
        """Return the effect (thresholds) of each site that is additive, beyond doubt.

        `error_rate` is the number of sites without effect that may be among them, in expectation.
        """
        tested = self.tested
        if self.is_exact:
            found = tested[tested["effect"] != 0]
        else:
            deviates = certain_deviates(error_rate, len(self.table))
            is_clear = tested["effect"].abs() > deviates * tested["error"]
            found = tested[is_clear & (tested["probability"] > SURE)]
        return dict(zip(found["site"].tolist(), found["effect"].tolist(), strict=True))


def certain_deviates(error_rate: float, num_sites: int) -> float:
    """Return how many standard errors from zero a site is additive beyond doubt.

    So far off are `error_rate` of so many sites without effect, in expectation.
    """
    return float(stats.norm.isf(min(0.25, error_rate / 2 / max(1, num_sites))))
