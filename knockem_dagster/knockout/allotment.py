"""How a study's options become settings of its assays: errors small enough for the resolution, shares of the budget."""

from __future__ import annotations

from dataclasses import dataclass

from knockem_dagster.knockout.assays.published.null_distribution import NullSettings
from knockem_dagster.knockout.assays.site_weights import certain_deviates

MOST_COMPETITIONS = 10_000_000
"""What one assay may ask for where no budget is given: a study does not run for ever."""
_POWER_DEVIATES = 2.0
"""A site at the resolution is named with probability .977."""
_SHARE_OF_NULL = 0.25
_SHARE_OF_WEIGHING = 0.6


@dataclass(frozen=True, slots=True)
class Allotment:
    """A genome's size, the smallest effect to be found (thresholds), and what may be asked and mistaken.

    `error_rate` is the number of sites without effect that may be named, in expectation; `budget` that of competitions
    in all, where there is a limit.
    """

    num_sites: int
    resolution: float
    error_rate: float
    budget: int | None

    @property
    def null_settings(self) -> NullSettings:
        """Return how many competitions the null distribution gets."""
        usual = NullSettings()
        return usual if self.budget is None else NullSettings(min(usual.replicates, int(_SHARE_OF_NULL * self.budget)))

    @property
    def weighing_error(self) -> float:
        """Return the standard error (thresholds) that weighing aims at: with a budget, the smallest that it allows."""
        if self.budget is not None:
            return 0.0
        return self.resolution / (certain_deviates(self.error_rate, self.num_sites) + _POWER_DEVIATES)

    def for_weighing(self, spent: int, *, sets_follow: bool) -> int:
        """Return what weighing may ask for when so much is spent."""
        left = self.left(spent)
        return left if self.budget is None or not sets_follow else int(_SHARE_OF_WEIGHING * left)

    def left(self, spent: int) -> int:
        """Return what may still be asked for when so much is spent."""
        return MOST_COMPETITIONS if self.budget is None else max(0, self.budget - spent)
