"""The reference organism: genomes whose every effect is known, competing in process.

Effects are in detection thresholds. A knockout costs the sum of its sites' effects, and the penalty of each
epistatic set that is wholly knocked out. Exact mode answers with the cost itself, 0 below one threshold;
Wright-Fisher mode lets two populations compete. Ground truth for tests and benchmarks; no assay may know the
numbers here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.competitions import Answer, Competition, Counts
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet

Mode = Literal["exact", "wright-fisher"]

EXACT_UNIT = 0.25
"""Score of one threshold in exact mode, where a cost e becomes counts of 10^6 (1 +- e/4) / 2 after one update."""

_GRAIN = 10**12
_EXACT_INDIVIDUALS = 1_000_000
_LARGEST_EXACT_EFFECT = 4 * (1 - 1e-5)
INDIVIDUALS = 1000
UPDATES = 100
SELECTION_PER_EFFECT = 0.0176
_FEW_SITES = 16


@dataclass(frozen=True, slots=True)
class EpistaticSet:
    """Sites that cover for each other: `penalty` (thresholds) is paid when all are knocked out."""

    sites: tuple[int, ...]
    penalty: float


@dataclass(frozen=True, slots=True)
class ReferenceGenome:
    """A wild type with known truth: `effects` (thresholds) of additive sites, and epistatic sets."""

    num_sites: int
    effects: Mapping[int, float] = field(default_factory=dict[int, float])
    sets: tuple[EpistaticSet, ...] = ()

    @classmethod
    def draw(
        cls,
        rng: Generator,
        *,
        num_sites: int,
        num_additive: int,
        largest_effect: float = 0.7,
        num_sets: int = 0,
        set_size: int = 4,
        penalties: tuple[float, float] = (0.7, 1.6),
        overlapping: bool = False,
    ) -> ReferenceGenome:
        """Draw additive effects U(0, `largest_effect`) and sets with penalties U(`penalties`), all in thresholds."""
        additive = rng.choice(num_sites, num_additive, replace=False)
        effects = dict(zip(additive.tolist(), rng.uniform(0, largest_effect, num_additive).tolist(), strict=True))
        if overlapping:
            members = [rng.choice(num_sites, set_size, replace=False).tolist() for _ in range(num_sets)]
        else:
            members = rng.choice(num_sites, num_sets * set_size, replace=False).reshape(num_sets, set_size).tolist()
        drawn = zip(members, rng.uniform(*penalties, num_sets).tolist(), strict=True)
        return cls(num_sites, effects, tuple(EpistaticSet(tuple(sorted(each)), penalty) for each, penalty in drawn))

    @classmethod
    def additive(cls, rng: Generator) -> ReferenceGenome:
        """Draw the paper's additive setting: 1,000 sites, 50 of them additive."""
        return cls.draw(rng, num_sites=1000, num_additive=50)

    @classmethod
    def epistatic(cls, rng: Generator) -> ReferenceGenome:
        """Draw the paper's epistatic setting: 4,000 sites, 200 additive, 20 sets of 5 that may overlap."""
        return cls.draw(rng, num_sites=4000, num_additive=200, num_sets=20, set_size=5, overlapping=True)

    @classmethod
    def any_effect(cls, rng: Generator) -> ReferenceGenome:
        """Draw the paper's any-effect setting: 10,000 sites, 400 additive, 40 disjoint sets of 4."""
        return cls.draw(rng, num_sites=10_000, num_additive=400, num_sets=40, set_size=4)

    @classmethod
    def demo(cls, rng: Generator) -> ReferenceGenome:
        """Draw the demonstration genome: 1,000 sites, 50 additive, 10 disjoint sets of 4."""
        return cls.draw(rng, num_sites=1000, num_additive=50, num_sets=10, set_size=4)

    @classmethod
    def from_json(cls, text: str) -> ReferenceGenome:
        """Read the content of a genome of the explicit organism."""
        content = json.loads(text)
        return cls(
            int(content["sites"]),
            {int(site): float(effect) for site, effect in content.get("effects", {}).items()},
            tuple(EpistaticSet(tuple(each["sites"]), float(each["penalty"])) for each in content.get("sets", [])),
        )

    def to_json(self) -> str:
        """Write the content of a genome of the explicit organism."""
        return json.dumps(
            {
                "sites": self.num_sites,
                "effects": {str(site): self.effects[site] for site in sorted(self.effects)},
                "sets": [{"sites": list(each.sites), "penalty": each.penalty} for each in self.sets],
            }
        )

    @property
    def genome(self) -> Genome:
        """Return the genome as assays see it; its identifier is the digest of its content."""
        return Genome(hashlib.sha256(self.to_json().encode()).hexdigest(), self.num_sites)

    @property
    def additive_sites(self) -> frozenset[int]:
        """Return the sites with an effect of their own."""
        return frozenset(site for site, effect in self.effects.items() if effect != 0)

    @property
    def epistatic_sites(self) -> frozenset[int]:
        """Return the sites in at least one epistatic set."""
        return frozenset(site for each in self.sets for site in each.sites)

    @property
    def functional_sites(self) -> frozenset[int]:
        """Return the sites that are additive or epistatic."""
        return self.additive_sites | self.epistatic_sites

    def effect(self, knockout: KnockoutSet) -> float:
        """Return the cost of a knockout, in thresholds. The definition; ReferenceOrganism is the fast form."""
        own = sum(round(self.effects.get(site, 0.0) * _GRAIN) for site in knockout.sites.tolist())
        lost = sum(round(each.penalty * _GRAIN) for each in self.sets if all(site in knockout for site in each.sites))
        return (own + lost) / _GRAIN


class ReferenceOrganism:
    """Lets knockouts of one reference genome compete; `compete` is what assays ask.

    An answer depends only on the competition and `seed`. Costs are whole numbers of 1e-12 thresholds, so
    that following a knockout site by site (fast) ends at the same number as summing afresh.
    """

    def __init__(self, genome: ReferenceGenome, *, mode: Mode = "exact", seed: int = 0) -> None:
        self.genome = genome
        self.mode: Mode = mode
        self.num_asked = 0
        self._seed = seed
        self._own = [0] * genome.num_sites
        for site, effect in genome.effects.items():
            self._own[site] = round(effect * _GRAIN)
        self._own_array = np.array(self._own, dtype=np.int64)
        self._penalties = [round(each.penalty * _GRAIN) for each in genome.sets]
        self._sets_of: list[tuple[int, ...]] = [()] * genome.num_sites
        for number, each in enumerate(genome.sets):
            for site in each.sites:
                self._sets_of[site] = (*self._sets_of[site], number)
        self._set_masks = [KnockoutSet.of(each.sites, genome.num_sites).mask for each in genome.sets]
        self._mask = 0
        self._cost = 0
        self._left = [len(each.sites) for each in genome.sets]

    @property
    def stated_unit(self) -> float | None:
        """Return the score of one threshold where the organism has no noise."""
        return EXACT_UNIT if self.mode == "exact" else None

    async def compete(self, competitions: Sequence[Competition]) -> list[Answer]:
        """Answer every competition, in order."""
        return [self.answer(competition) for competition in competitions]

    def answer(self, competition: Competition) -> Counts:
        """Return the counts of one competition."""
        self.num_asked += 1
        cost = self._cost_of(competition.challenger)
        if competition.background.mask:
            cost -= self._cost_of(competition.background)
        if self.mode == "exact":
            return exact_counts(cost / _GRAIN)
        survivors = _wright_fisher_once(cost / _GRAIN, np.random.default_rng(self.seed_of(competition)))
        return Counts(UPDATES, survivors, INDIVIDUALS - survivors)

    def is_detectable(self, knockout: KnockoutSet) -> bool:
        """Tell whether a knockout costs one threshold or more. Ground truth: it is not a competition."""
        return self._cost_of(knockout) >= _GRAIN

    def _cost_of(self, knockout: KnockoutSet) -> int:
        changed = knockout.mask ^ self._mask
        if changed.bit_count() > _FEW_SITES:
            self._start_afresh(knockout)
            return self._cost
        while changed:
            site = changed.bit_length() - 1
            changed ^= 1 << site
            self._toggle(site, off=bool(knockout.mask >> site & 1))
        self._mask = knockout.mask
        return self._cost

    def _toggle(self, site: int, *, off: bool) -> None:
        sign = 1 if off else -1
        self._cost += sign * self._own[site]
        for number in self._sets_of[site]:
            whole = self._left[number] == 0
            self._left[number] -= sign
            if whole or self._left[number] == 0:
                self._cost += sign * self._penalties[number]

    def _start_afresh(self, knockout: KnockoutSet) -> None:
        self._mask = knockout.mask
        self._cost = int(self._own_array[knockout.sites].sum())
        for number, set_mask in enumerate(self._set_masks):
            left = (set_mask & ~self._mask).bit_count()
            self._left[number] = left
            if left == 0:
                self._cost += self._penalties[number]

    def seed_of(self, competition: Competition) -> int:
        """Return the seed of one competition."""
        digest = hashlib.sha256(f"{self._seed}/{competition.purpose}/{competition.replicate}/".encode())
        digest.update(competition.background.to_bytes())
        digest.update(competition.challenger.to_bytes())
        return int.from_bytes(digest.digest()[:8], "little")


def exact_counts(effect: float) -> Counts:
    """Return the counts of exact mode for a cost in thresholds: a score of effect / 4, 0 below one threshold."""
    seen = 0.0 if abs(effect) < 1 else max(-_LARGEST_EXACT_EFFECT, min(_LARGEST_EXACT_EFFECT, effect))
    return Counts(1, round(_EXACT_INDIVIDUALS * (1 + seen / 4) / 2), round(_EXACT_INDIVIDUALS * (1 - seen / 4) / 2))


def wright_fisher(effects: NDArray[np.float64], rng: Generator) -> NDArray[np.int64]:
    """Return the background's survivors of 1,000 individuals after 100 updates, shape of `effects` (thresholds)."""
    disadvantage = np.exp(-SELECTION_PER_EFFECT * effects)
    survivors = np.full(effects.shape, INDIVIDUALS // 2, dtype=np.int64)
    for _ in range(UPDATES):
        rivals = (INDIVIDUALS - survivors) * disadvantage
        survivors = rng.binomial(INDIVIDUALS, survivors / (survivors + rivals))
    return survivors


def _wright_fisher_once(effect: float, rng: Generator) -> int:
    """Return what `wright_fisher` draws for a single effect, an order of magnitude faster."""
    disadvantage = math.exp(-SELECTION_PER_EFFECT * effect)
    survivors = INDIVIDUALS // 2
    for _ in range(UPDATES):
        rivals = (INDIVIDUALS - survivors) * disadvantage
        survivors = int(rng.binomial(INDIVIDUALS, survivors / (survivors + rivals)))
    return survivors
