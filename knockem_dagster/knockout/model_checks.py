"""Named checks of the model of scores on a study's own competitions, and which estimates a failed one takes away.

The counts rest on a model: angles scatter normally, alike in all competitions, around what effects add up to. Each
check looks at one way to depart from it that would make an interval wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.estimators.residuals import ResidualSummary
from knockem_dagster.knockout.weighed_counts import EVEN_WIDTHS

_STANDARD_ERRORS = 3.5
_TAIL = 1 / 12
_CORRELATION = 0.05
_GROWTH = 0.75
_ERRORS_BELOW_LIMIT, _ERRORS_IN_SLAB = 4, 5
"""So many standard errors a limit must lie above zero for counts above it, so many the narrowest even slab spans."""


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """A check that failed: its `name`, and the `reason` in words that fit after "declined:".

    Any of them makes uncertain how large one threshold is, and so how many effects exceed a limit; and how many sets
    there are, since these were found by sequential tests that rest on the model.
    """

    name: str
    reason: str


_UNCHECKED = FailedCheck(
    "the model was checked", "weighing was done by an earlier version, which left nothing to check"
)


def failed_checks(weights: SiteWeights) -> tuple[FailedCheck, ...]:
    """Return the checks that the competitions of a weighing failed; none without noise."""
    residuals = weights.residuals
    if weights.is_exact:
        return ()
    if residuals is None:
        return (_UNCHECKED,)
    return tuple(check for check in (_tails(residuals), _drift(residuals), _growth(residuals)) if check is not None)


def too_coarse(weights: SiteWeights, *, above: float | None = None) -> str:
    """Return why sites are not weighed finely enough to be counted, or those `above` a limit; empty if they are."""
    most = EVEN_WIDTHS[0] / _ERRORS_IN_SLAB if above is None else above / _ERRORS_BELOW_LIMIT
    if not weights.error > most:
        return ""
    return (
        f"the standard error of a site is {weights.error:.2g} thresholds, and counting needs {most:.2g} or less: ask "
        "for a finer resolution, or a larger budget"
    )


def _tails(residuals: ResidualSummary) -> FailedCheck | None:
    tolerance = max(_TAIL, _STANDARD_ERRORS * residuals.tail_error)
    if max(abs(residuals.upper_tail - 1), abs(residuals.lower_tail - 1)) <= tolerance:
        return None
    reason = (
        "the scores are skewed or heavy-tailed: 1% of competitions deviate by more than "
        f"{residuals.upper_tail:.2f} and {residuals.lower_tail:.2f} times what a normal deviate does, "
        "so that one threshold is not what their standard deviation says"
    )
    return FailedCheck("scores scatter normally", reason)


def _drift(residuals: ResidualSummary) -> FailedCheck | None:
    if residuals.correlation <= max(_CORRELATION, _STANDARD_ERRORS * residuals.correlation_error):
        return None
    reason = (
        "the null drifts: competitions asked one after the other deviate together "
        f"(correlation {residuals.correlation:.2f}), so that repeating one does not make it surer, and their standard "
        "deviation is more than that of a competition"
    )
    return FailedCheck("competitions are independent", reason)


def _growth(residuals: ResidualSummary) -> FailedCheck | None:
    if residuals.growth <= _GROWTH:
        return None
    reason = (
        "the scores of unlike genomes scatter more than those of the wild type "
        f"(by {100 * residuals.growth:.0f}% of the variance at the end of the scale)"
    )
    return FailedCheck("scatter does not grow with the effect", reason)
