"""The rule that is recommended: of several shapes, and margins upon them, what would have done best so far.

Each candidate is fitted to the first jobs and judged on those that follow, several times over: as it will be used.
Counted are GB hours that were allocated and not used, and beside these a price for each failed try, since somebody
waits for it. Peaks at a limit are completed before (see `censored`), and jobs are taken to run as long as others with
inputs of their size, and a second at least: otherwise one job that ran for days would decide, or none that is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from knockem_dagster.joblogs.sizing.censored import completed
from knockem_dagster.joblogs.sizing.history import Floats, History
from knockem_dagster.joblogs.sizing.quantile_line import quantile_line
from knockem_dagster.joblogs.sizing.rule import BYTE_SECONDS, NOTHING, Cost, Rule, costs_of

FEWEST = 20
"""Jobs of which a rule can be told."""
MOST = 2000
"""Of the latest jobs, which are looked at."""
_MOST_FITTED = 400
"""Of these, to which a line is fitted."""
_FEWEST_FITTED = 5
_FOLDS = ((0.3, 0.45), (0.45, 0.6), (0.6, 0.75), (0.75, 0.9), (0.9, 1.0))
"""What is fitted to ends at the first share of the jobs, and is judged on those until the second."""
_SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
_MARGINS = (1.0, 1.1)
_AGAIN = ("tail", "largest")
"""What the second try is to be enough for: nearly all that may come, but no more than double, or all there was."""
_TAIL = 3.0
"""Standard deviations of the logarithm of peaks, for nearly all."""
_LEAST_GROWTH = 1.35
_PRICE = 1.0
"""Of a failed try, beside what it wastes: in GB hours that a job of the tool commonly uses."""
_LEAST_GAIN = 0.02
"""By which a rule must be better to depend on sizes."""
_POWERS = (0.05, 3.0)
"""Of a size, for more to be given to larger inputs: what is beyond is no law of a tool."""
_LEAST_RANGE = 1.5
"""Of the largest size to the smallest, for something to be told by them."""
_MOST_OF_LARGEST = 8.0
"""Of the largest value so far: inputs beyond all that were seen are given no more."""
_DECIDING = 0.9
"""Share of jobs by which it is decided whether a bound depends on sizes."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A rule, by which shape it was made, and what it cost on jobs that followed those it was fitted to."""

    rule: Rule
    shape: str
    cost: Cost


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A shape, how the second try is found, the share of jobs that the first is enough for, the margin upon that."""

    shape: str
    again: str
    share: float
    margin: float


@dataclass(frozen=True, slots=True)
class _Family:
    """Rules of one shape, k of them: each gives so many times what the middle one does.

    `by`, `otherwise` and `growth` have shape (k,).
    """

    candidates: list[_Candidate]
    middle: Rule
    by: Floats
    otherwise: Floats
    growth: Floats

    def given(self, sizes: Floats) -> Floats:
        """Return what each gives to jobs with inputs of these sizes, shape (k, n)."""
        given = np.outer(self.by, replace(self.middle, most=np.inf).of(sizes))
        if not self.middle.depends_on_size:
            return given
        return np.where(sizes > 0, np.minimum(given, self.middle.most), self.otherwise[:, None])

    def rules(self) -> Iterator[Rule]:
        """Yield each as a rule."""
        for by, otherwise, growth in zip(self.by.tolist(), self.otherwise.tolist(), self.growth.tolist(), strict=True):
            yield replace(_scaled(self.middle, by, otherwise), growth=growth)


def chosen(history: History) -> Chosen:
    """Return the rule for the memory of jobs that follow those of this history, of which there are at least FEWEST."""
    recent = _with_usual_runtimes(completed(history.part(max(0, len(history) - MOST), len(history))))
    costs: dict[_Candidate, Cost] = {}
    for before, after in _folds(len(recent)):
        following = recent.part(before, after)
        for family in _families(recent.part(0, before)):
            judged = costs_of(family.given(following.sizes), family.growth, following)
            for candidate, each in zip(family.candidates, judged, strict=True):
                costs[candidate] = costs.get(candidate, NOTHING) + each
    most = max(each.jobs for each in costs.values())  # a shape may not fit all parts of the history
    fitted = (each for family in _families(recent) for each in zip(family.candidates, family.rules(), strict=True))
    rules = {each: rule for each, rule in fitted if each in costs and costs[each].jobs == most}
    price = _PRICE * float(np.median(recent.peaks * recent.runtimes)) / BYTE_SECONDS

    def regret(candidate: _Candidate) -> float:
        needed = 1 + _LEAST_GAIN if rules[candidate].depends_on_size else 1.0
        return needed * (costs[candidate].wasted_gb_hours + price * costs[candidate].failed_tries)

    best = min(rules, key=regret)
    return Chosen(rules[best], best.shape, costs[best])


def bound(sizes: Floats, values: Floats, share: float) -> Rule:
    """Return a rule that is enough for this share of values, shape (n,), by the sizes, NaN where unknown.

    It depends on the sizes where that would have been nearer to those that followed, by the loss of Koenker and
    Bassett (1978) for a share that more than a few jobs decide.
    """
    whole = _as_history(sizes, values)
    recent = whole.part(max(0, len(whole) - MOST), len(whole))
    losses: dict[str, list[float]] = {}
    for before, after in _folds(len(recent)):
        following = recent.part(before, after)
        for name, rule in _bounds(recent.part(0, before), _DECIDING):
            over = following.peaks - rule.of(following.sizes)
            lost = float(np.sum(np.maximum(_DECIDING * over, (_DECIDING - 1) * over)))
            losses.setdefault(name, []).append(lost)
    rules = {name: rule for name, rule in _bounds(recent, share) if len(losses.get(name, ())) == len(_FOLDS)}
    depends = "power" in rules and sum(losses["power"]) < (1 - _LEAST_GAIN) * sum(losses["constant"])
    return rules["power" if depends else "constant"]


def _with_usual_runtimes(history: History) -> History:
    """Return the history with the runtimes that are usual for jobs of their sizes, and the same sum."""
    took = np.maximum(history.runtimes, 1.0)
    usual = np.full(len(history), took.mean())
    known = history.sizes > 0
    sizes, runtimes = history.sizes[known], took[known]
    if _tell(sizes):
        sizes = np.log(sizes) - np.log(sizes.max())
        power = min(np.polyfit(sizes, np.log(runtimes), 1)[0], _POWERS[1])
        shape = np.exp(max(power, -_POWERS[1]) * sizes)
        usual[known] = shape * runtimes.sum() / shape.sum()
    return replace(history, runtimes=usual)


def _folds(number: int) -> Iterator[tuple[int, int]]:
    for before, after in _FOLDS:
        yield round(before * number), round(after * number)


def _families(history: History) -> Iterator[_Family]:
    for name, shape in _SHAPES.items():
        middle = shape(history)
        if middle is None:
            continue
        ratios = history.peaks / middle.of(history.sizes)
        largest = float(ratios.max())
        tail = max(float(np.exp(_TAIL * np.log(ratios).std())), largest)
        by = np.outer(np.quantile(ratios, _SHARES), _MARGINS).ravel()
        otherwise = np.outer(np.quantile(history.peaks, _SHARES), _MARGINS).ravel()
        growth = np.clip(tail / by, _LEAST_GROWTH, 2.0)
        growth = np.concatenate([growth, np.where(largest > by, largest / by, growth)])
        candidates = [_Candidate(name, *each) for each in product(_AGAIN, _SHARES, _MARGINS)]
        yield _Family(candidates, middle, np.tile(by, len(_AGAIN)), np.tile(otherwise, len(_AGAIN)), growth)


def _bounds(history: History, share: float) -> Iterator[tuple[str, Rule]]:
    yield "constant", Rule(float(np.quantile(history.peaks, share)))
    middle = _power(history)
    if middle is not None:
        upper = float(np.quantile(history.peaks / middle.of(history.sizes), share))
        yield "power", _scaled(middle, upper, float(np.quantile(history.peaks, share)))


def _scaled(rule: Rule, by: float, otherwise: float) -> Rule:
    return replace(rule, base=rule.base * by, factor=rule.factor * by, least=rule.least * by, otherwise=otherwise)


def _constant(history: History) -> Rule | None:
    return Rule(float(np.median(history.peaks)))


def _line(history: History, share: float) -> Rule | None:
    known = _with_sizes(history)
    if known is None:
        return None
    base, factor = quantile_line(known.sizes, known.peaks, share)
    return _limited(Rule(base, factor), known, history) if factor > 0 else None


def _power(history: History) -> Rule | None:
    known = _with_sizes(history)
    if known is None:
        return None
    power, height = np.polyfit(np.log(known.sizes), np.log(known.peaks), 1)
    least, most = _POWERS
    return _limited(Rule(0.0, float(np.exp(height)), float(power)), known, history) if least < power <= most else None


def _limited(rule: Rule, known: History, history: History) -> Rule:
    """Return a rule that was fitted to jobs of known sizes with its limits, and what it gives to the others."""
    least, most = float(known.peaks.min()), _MOST_OF_LARGEST * float(history.peaks.max())
    return replace(rule, least=least, most=most, otherwise=float(np.median(history.peaks)))


def _with_sizes(history: History) -> History | None:
    """Return the latest jobs whose inputs' sizes are known; None where these tell nothing."""
    known = history.of(~np.isnan(history.sizes) & (history.sizes > 0))
    recent = known.part(max(0, len(known) - _MOST_FITTED), len(known))
    return recent if _tell(recent.sizes) else None


def _tell(sizes: Floats) -> bool:
    """Return whether sizes, shape (n,), are enough and different enough for something to depend on them."""
    return sizes.size >= _FEWEST_FITTED and bool(sizes.max() >= _LEAST_RANGE * sizes.min())


def _as_history(sizes: Floats, values: Floats) -> History:
    positive = np.maximum(values, 1e-9)
    return History(sizes, positive, np.ones(values.size), np.zeros(values.size, dtype=bool))


_SHAPES: dict[str, Callable[[History], Rule | None]] = {
    "constant": _constant,
    "line": lambda history: _line(history, 0.5),
    "upper line": lambda history: _line(history, 0.9),
    "power": _power,
}
