"""How small an effect weighing would have shown, had a site had it: what stands behind "not resolved"."""

from __future__ import annotations

import numpy as np

from knockem_dagster.knockout.assays.site_weights import POWER_DEVIATES, SURE, SiteWeights, certain_deviates
from knockem_dagster.knockout.estimators.effect_mixture import EffectMixture
from knockem_dagster.knockout.weighed_counts import EVEN_WIDTHS

_LEARNING_ROUNDS = 50
_DEVIATES = np.arange(0.0, 40.0, 0.01)


def effect_surely_named(weights: SiteWeights, error_rate: float) -> float:
    """Return the effect (thresholds) with which any tested site that is not additive would have been named.

    That is, with probability .977 at an `error_rate` as for `SiteWeights.additive`, at the site that is known least.
    0 without noise; NaN where every tested site is additive, or where no effect would be certain enough.
    """
    tested = weights.tested
    errors = tested.loc[~tested["site"].isin(list(weights.additive(error_rate))), "error"]
    if not len(errors) or weights.is_exact:
        return 0.0 if len(errors) else float("nan")
    largest = float(errors.max())
    effects, every_error = (tested[name].to_numpy(dtype=np.float64) for name in ("effect", "error"))
    mixture = EffectMixture.of_widths(EVEN_WIDTHS).learned(effects, every_error, rounds=_LEARNING_ROUNDS)
    probability = mixture.posterior(_DEVIATES * largest, np.full(_DEVIATES.size, largest)).probability
    certain = _DEVIATES[probability > SURE]
    if not certain.size:
        return float("nan")
    needed = max(certain_deviates(error_rate, len(weights.table)), float(certain[0]))
    return (needed + POWER_DEVIATES) * largest
