"""A submission's tables as a genome with known truth and noisy scores would leave them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.random import Generator

from knockem_dagster.knockout.quantities import unit_of
from knockem_dagster.reports import study_facts
from knockem_dagster.reports.inputs import (
    FailedAttempt,
    LossFacts,
    NegativeBinomialFit,
    NullFacts,
    ReportInputs,
    SubmissionFacts,
    TruthFacts,
)

NULL_SD = 0.0031
UNIT = 2.25 * NULL_SD
HOSTILE_TAIL = "Traceback:\n<script>document.title = 'owned'</script>\n\x1b[31m\x00</pre><img src=http://x.test/a.png>"


@dataclass(frozen=True)
class Organism:
    """Effects by site in detection thresholds, and redundant sets with their penalties."""

    num_sites: int
    effects: dict[int, float]
    sets: list[list[int]]
    penalties: list[float]

    @property
    def truth(self) -> TruthFacts:
        return TruthFacts(effects=self.effects, sets=self.sets)


def organism(rng: Generator, num_sites: int) -> Organism:
    """Draw 5% additive sites, two of them detectable alone, and 1 redundant set of 4 per 100 sites."""
    additive = rng.choice(num_sites, max(num_sites // 20, 4), replace=False)
    effects = {int(site): float(rng.uniform(0, 0.7)) for site in additive}
    effects[int(additive[0])], effects[int(additive[1])] = 1.6, 2.2
    members = rng.choice(num_sites, 4 * max(num_sites // 100, 1), replace=False).reshape(-1, 4)
    sets = [[int(site) for site in row] for row in members]
    return Organism(num_sites, effects, sets, [float(rng.uniform(0.7, 1.6)) for _ in sets])


def skeleton(organism: Organism, order: list[int]) -> set[int]:
    """Delete sites in this order as long as the whole loss stays below one threshold; return what stays."""
    set_of = {site: number for number, members in enumerate(organism.sets) for site in members}
    left = [len(members) for members in organism.sets]
    loss, kept = 0.0, set[int]()
    for site in order:
        cost = organism.effects.get(site, 0.0)
        number = set_of.get(site)
        if number is not None and left[number] == 1:
            cost += organism.penalties[number]
        if loss + cost >= 1:
            kept.add(site)
            continue
        loss += cost
        if number is not None:
            left[number] -= 1
    return kept


def scores(rng: Generator, effects: np.ndarray) -> np.ndarray:
    """Return one noisy score (1/update) per effect (thresholds)."""
    return rng.normal(np.asarray(effects) * UNIT, NULL_SD)


def tables(rng: Generator, organism: Organism, *, num_skeletons: int = 10) -> dict[str, pd.DataFrame]:
    """Return every declared table with its declared columns."""
    size = organism.num_sites
    alone = np.array([organism.effects.get(site, 0.0) for site in range(size)])
    threshold = 2.4 * NULL_SD
    null_scores = scores(rng, np.zeros(100))
    alpha = np.round(500 + null_scores * 50_000).astype(np.int64)
    null = pd.DataFrame(
        {"replicate": np.arange(100), "updates": 100.0, "alpha": alpha, "beta": 1000 - alpha, "score": null_scores}
    )
    screen_scores = scores(rng, alone)
    screen_scores[3 % size] = np.nan
    screen = pd.DataFrame(
        {"site": np.arange(size), "score": screen_scores, "p": 0.5, "q": 0.9, "detected": screen_scores > 4 * NULL_SD}
    )
    order = [rng.permutation(size) for _ in range(num_skeletons)]
    kept = [skeleton(organism, each.tolist()) for each in order]
    in_skeleton = np.array([[site in each for site in range(size)] for each in kept])
    tried = np.array([np.argsort(each) for each in order])
    skeletons = pd.DataFrame(
        {
            "skeleton": np.repeat(np.arange(num_skeletons), size),
            "site": np.tile(np.arange(size), num_skeletons),
            "kept": in_skeleton.ravel(),
            "order": tried.ravel(),
        }
    )
    rows = [(number, site) for number, each in enumerate(kept) for site in sorted(each)]
    set_of = {site: number for number, members in enumerate(organism.sets) for site in members}
    severity = [0.9 + alone[site] + (organism.penalties[set_of[site]] if site in set_of else 0) for _, site in rows]
    jackknife_scores = scores(rng, np.array(severity))
    jackknife = pd.DataFrame(rows, columns=["skeleton", "site"]).assign(
        score=jackknife_scores, detected=jackknife_scores > threshold
    )
    estimates = pd.DataFrame(
        [
            ("additive sites", 0.82 * len(organism.effects), np.nan, np.nan, np.nan, "negative binomial fit", 5_250),
            (
                "epistatic sites",
                round(3.3 * len(organism.sets)),
                np.nan,
                np.nan,
                np.nan,
                "skeleton sample and jackknife",
                11_900,
            ),
            ("functional sites", 0.0884 * size, 0.0801 * size, 0.0966 * size, 0.95, "skeleton mark-recapture", 10_000),
            ("mean effect of additive sites", 0.3333, np.nan, np.nan, np.nan, "negative binomial fit", 5_250),
            ("sites detected alone", 2.0, np.nan, np.nan, np.nan, "false discovery rate at most 5%", 1_100),
        ],
        columns=["quantity", "value", "low", "high", "level", "method", "n"],
    )
    estimates.insert(4, "unit", [unit_of(quantity) for quantity in estimates["quantity"]])
    effect = screen_scores / UNIT
    sites = pd.DataFrame(
        {
            "site": np.arange(size),
            "effect": effect,
            "low": effect - 0.87,
            "high": effect + 0.87,
            "probability": in_skeleton.mean(axis=0),
            "set": -1,
            "finding": np.where(screen["detected"], "detected alone", "not resolved"),
        }
    )
    sites.loc[np.isnan(effect), "finding"] = "not tested"
    calibration_doses = np.unique(np.round(np.geomspace(1, size, 250)).astype(np.int64))
    error = 0.05
    weighed = rng.normal(alone, error)
    weights = pd.DataFrame(
        {
            "site": np.arange(size),
            "effect": weighed,
            "low": weighed - 1.96 * error,
            "high": weighed + 1.96 * error,
            "error": error,
            "probability": np.where(np.abs(weighed) > 3 * error, 1.0, 0.02),
            "tested": True,
        }
    )
    sets = pd.DataFrame(
        [
            (number, site, penalty, penalty - 0.2, penalty + 0.2)
            for number, (members, penalty) in enumerate(zip(organism.sets, organism.penalties, strict=True))
            for site in sorted(members)
        ],
        columns=["set", "site", "penalty", "low", "high"],
    )
    return {
        "study": study(organism),
        "weights": weights,
        "sets": sets,
        "null_distribution": null,
        "screen": screen,
        "calibration": _doses(rng, organism, np.sort(rng.choice(calibration_doses, 250))),
        "titration": _doses(rng, organism, np.repeat(np.linspace(3, max(size // 12, 8), 5).astype(np.int64), 200)),
        "skeletons": skeletons,
        "prefix_skeletons": skeletons.assign(tested=True),
        "prefix_skeleton_summary": pd.DataFrame(
            {
                "skeleton": np.arange(num_skeletons),
                "kept": in_skeleton.sum(axis=1),
                "untested": 0,
                "competitions": 2_400,
                "beneficial": 0,
                "resolution": 0.4,
                "residual": 1.9,
                "low": 1.5,
                "high": 2.3,
                "n": 20,
            }
        ),
        "jackknife": jackknife,
        "estimates": estimates,
        "sites": sites,
    }


def study(organism: Organism, **changes: float | str | None) -> pd.DataFrame:
    """Return the table `study` of a weighed genome; `changes` are values by the names of facts in study_facts."""
    values: dict[str, float | str | None] = {
        "SUBMISSION": "4f0c9a52-6f6e-4f0b-9a51-0f2d6f6b7c11",
        "ORGANISM": "registry.example.org/lab/explicit:2.1",
        "IMAGE_DIGEST": "sha256:9b2f6d0e6f4f8b0b2d4c1e1f7a5a1f0c9be1c62dcb5e0b8a4f7f3d9a1c2b3e4f",
        "RUNTIME": "docker",
        "GENOME_DIGEST": "41c7760c50efde99bf574ed8fffc7a6dd3405d546d3da929b214c8945acf8a97",
        "SITES": organism.num_sites,
        "SEED": 20_240_417,
        "VERSION": "0.1.0",
        "REVISION": "a1b2c3d",
        "PYTHON": "3.11.7",
        "NUMPY": "2.4.6",
        "SCIPY": "1.17.1",
        "RESOLUTION": 0.1,
        "ERROR_RATE": 0.02,
        "NULL_COMPETITIONS": 100,
        "NULL_MEAN": 1.2e-5,
        "NULL_SD": NULL_SD,
        "NULL_P": 0.7123,
        "NULL_LEVEL": 0.01,
        "THRESHOLD": 2.4 * NULL_SD,
        "UNIT": UNIT,
        "LEVEL": 0.95,
        "DOSE_TESTS": 40,
        "LARGEST_SHARE": 0.15,
        "STANDARD_ERROR": 0.0498,
        "SURELY_NAMED": 0.3218,
        "POWER": 0.97725,
        "SURE": 0.99,
        "NAMED": 31,
        "SET_RESOLUTION": 0.5,
        "SET_COMPETITIONS": 20,
        "SETS_FOUND": len(organism.sets),
        "SETS_COMPLETE": "yes",
        "ASKED": 28_350,
        "UNTESTABLE": 37,
        "UNTESTED": 3,
        **changes,
    }
    named = {getattr(study_facts, name): value for name, value in values.items()}
    ran = {"nulldist": (100, 0), "weighing": (5_000, 30), "setEnumeration": (23_250, 7)}
    for assay_type, (asked, untestable) in ran.items():
        named[study_facts.asked_by(assay_type)] = asked
        named[study_facts.untestable_of(assay_type)] = untestable
    return study_facts.study_table(named)


def _doses(rng: Generator, organism: Organism, doses: np.ndarray) -> pd.DataFrame:
    alone = np.zeros(organism.num_sites)
    for site, effect in organism.effects.items():
        alone[site] = effect if effect < 1 else 0.0
    total = [alone[rng.choice(organism.num_sites, dose, replace=False)].sum() for dose in doses.tolist()]
    found = scores(rng, np.array(total))
    return pd.DataFrame(
        {
            "dose": doses,
            "replicate": pd.Series(doses).groupby(doses).cumcount(),
            "knockout": "",
            "score": found,
            "detected": found > 2.4 * NULL_SD,
        }
    )


def lossy() -> LossFacts:
    """Return what an unruly organism loses."""
    return LossFacts(
        asked=28_350,
        answered=28_313,
        untestable=37,
        attempts={
            "succeeded": 28_313,
            "failed": 1_388,
            "timed out": 204,
            "bad result": 96,
            "out of memory": 11,
            "lost": 3,
        },
        slot_seconds=31_420.0,
        failed_slot_seconds=4_390.5,
        examples=[
            FailedAttempt("failed", 1, HOSTILE_TAIL),
            FailedAttempt("timed out", None, ""),
            FailedAttempt("bad result", 0, "x" * 1_000_000),
        ],
        untested_sites=[3, 217, 641],
    )


def lossless() -> LossFacts:
    """Return what a well-behaved organism loses."""
    return LossFacts(
        asked=28_350,
        answered=28_350,
        untestable=0,
        attempts={"succeeded": 28_350},
        slot_seconds=95.2,
        failed_slot_seconds=0.0,
    )


def inputs(
    *,
    num_sites: int = 1_000,
    seed: int = 7,
    losses: LossFacts | None = None,
    with_truth: bool = True,
    only: set[str] | None = None,
) -> ReportInputs:
    """Return everything a report is made from; `only` leaves out all tables but these."""
    rng = np.random.default_rng(seed)
    drawn = organism(rng, num_sites)
    every = tables(rng, drawn)
    return ReportInputs(
        submission=SubmissionFacts(
            id="4f0c9a52-6f6e-4f0b-9a51-0f2d6f6b7c11",
            organism="registry.example.org/lab/explicit:2.1",
            digest="sha256:9b2f6d0e6f4f8b0b2d4c1e1f7a5a1f0c9be1c62dcb5e0b8a4f7f3d9a1c2b3e4f",
            runtime="docker",
            num_sites=num_sites,
            genome_digest="sha256:41c7760c50efde99bf574ed8fffc7a6dd3405d546d3da929b214c8945acf8a97",
            assay_types=["nulldist", "screenCritical", "doseCalibration", "doseTitration", "skeletonization"],
            seed=20_240_417,
            submitted=datetime(2025, 3, 4, 9, 15, tzinfo=UTC),
            finished=datetime(2025, 3, 4, 9, 41, tzinfo=UTC),
            revision="a1b2c3d",
            user_email="ada@example.org",
            settings={"maxActive": 8, "maxFail": 3, "timeoutSeconds": 60, "skeletons": 10, "toleratedUntested": 0.05},
        ),
        tables={name: table for name, table in every.items() if only is None or name in only},
        losses=losses if losses is not None else lossy(),
        competitions_by_assay={
            "nulldist": 100,
            "screenCritical": num_sites,
            "doseCalibration": 250,
            "doseTitration": 5_000,
            "skeletonization": 10 * num_sites,
            "jackknifeKnockout": 1_900,
        },
        null=NullFacts(mean=1.2e-5, sd=NULL_SD, threshold=2.4 * NULL_SD, unit=UNIT, symmetry_p=0.71),
        truth=drawn.truth if with_truth else None,
        dose_fit=NegativeBinomialFit(r=3, p=0.041),
    )
