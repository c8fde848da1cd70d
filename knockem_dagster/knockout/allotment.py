"""How a study's options become settings of its assays: errors small enough for the resolution, shares of the budget."""

from __future__ import annotations

from dataclasses import dataclass

from knockem_dagster.knockout.assays.published.null_distribution import NullSettings
from knockem_dagster.knockout.assays.site_weights import POWER_DEVIATES, certain_deviates

MOST_COMPETITIONS = 10_000_000
"""What one assay may ask for where no budget is given: a study does not run for ever."""
_SHARE_OF_NULL = 0.25
_SHARE_OF_WEIGHING = 0.6
_SHARE_OF_SKELETONS = 0.3


@dataclass(frozen=True, slots=True)
class Allotment:
    """A genome's size, the smallest effect to be found (thresholds), and what may be asked and mistaken.

    `error_rate` is the number of sites without effect that may be named, in expectation; `budget` that of competitions
    in all, where there is a limit; a share of it is set aside for skeletons where they come last.
    """

    num_sites: int
    resolution: float
    error_rate: float
    budget: int | None
    skeletons_follow: bool = False

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
        return self.resolution / (certain_deviates(self.error_rate, self.num_sites) + POWER_DEVIATES)

    def for_weighing(self, spent: int, *, sets_follow: bool, searched: int = 0, on_skeletons: int = 0) -> int:
        """Return what weighing may ask for when so much is spent by others than those that follow.

        `searched` and `on_skeletons` is what the search for sets and that for skeletons have asked for already.
        """
        left = self.for_sets(spent, on_skeletons=on_skeletons)
        if self.budget is None:
            return left
        share = int(_SHARE_OF_WEIGHING * left) if sets_follow else left
        return max(0, min(share, left - searched))

    def for_sets(self, spent: int, *, on_skeletons: int = 0) -> int:
        """Return what the search for sets may ask for when so much is spent, beside that on skeletons."""
        if self.budget is None:
            return self.left(spent)
        set_aside = int(_SHARE_OF_SKELETONS * self.budget) if self.skeletons_follow else 0
        return self.left(spent + max(set_aside, on_skeletons))

    def left(self, spent: int) -> int:
        """Return what may still be asked for when so much is spent."""
        return MOST_COMPETITIONS if self.budget is None else max(0, self.budget - spent)
