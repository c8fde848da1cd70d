"""Several submissions side by side: one table of their estimates, and which of these a figure shows.

Whatever quantities and methods the submissions have are compared; a submission that lacks one has a row that says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from knockem_dagster.errors import KnockemError
from knockem_dagster.knockout.quantities import unit_of
from knockem_dagster.records.tables import ESTIMATE, METHOD, QUANTITY, Column, Table
from knockem_dagster.reports.spoken import DECLINED
from knockem_dagster.reports.wording import listed, number

MOST_PANELS = 4
"""Quantities that the figure shows."""
SEPARATOR = ", "
"""Between what sets a submission apart."""
_SHORT = 8
_MOST_CHARACTERS = 40
_MOST_NAMED = 5

# What a comparison begins with; a name stands for all quantities that begin so. Others follow by name.
_IMPORTANCE = (
    "functional sites",
    "additive sites",
    "sites with effect",
    "epistatic sites",
    "epistatic sets",
    "mean effect",
    "sites detected alone",
)
# Their estimates stay beside better ones, for comparison with what was published.
_PUBLISHED = ("Moreno 2024", "Burnham-Overton")


class Outcome(StrEnum):
    """What a submission has to say of a quantity by a method."""

    ESTIMATED = "estimated"
    NO_VALUE = "no value"
    NOT_ESTIMATED = "not estimated"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComparedSubmission:
    """A submission, what it ran on, and its estimates (the table of that name, which may be empty).

    Digests are hexadecimal. `settings` are all that may set it apart from others, by name, as text.
    """

    id: str
    state: str
    organism: str
    organism_digest: str
    genome_digest: str
    num_sites: int
    settings: Mapping[str, str]
    estimates: pd.DataFrame


COMPARISON = Table(
    "comparison",
    (
        QUANTITY,
        METHOD,
        Column("drawn", "bool", "", "the figure shows this quantity, by this method"),
        Column("submission", "str", "", "the submission's id"),
        Column("organism", "str", "", "container image or organism folder"),
        Column("genome", "str", "", "SHA-256 of the genome's content"),
        Column("sites", "int64", "sites", "length of the genome"),
        Column("state", "str", "", "how far the submission is"),
        Column("distinction", "str", "", "what sets the submission apart from the others"),
        Column(
            "outcome", "str", "", "estimated; no value: none was possible; not estimated: not asked for, or not done"
        ),
        *ESTIMATE,
        Column("n", "int64", "competitions", "competitions the estimate rests on; 0 where not estimated"),
    ),
    sort_key=(),
)


def comparison_table(submissions: Sequence[ComparedSubmission]) -> pd.DataFrame:
    """Return the estimates of all submissions (COMPARISON): for each quantity and method a row per submission.

    Quantities come in the order of importance, of their methods the preferred first, submissions as given. What the
    figure shows is at most MOST_PANELS quantities, each by the method that gives most submissions a value; among
    such methods one that is not kept for compatibility with published procedures, then one with more intervals.
    Raises KnockemError for fewer than two submissions, the same one twice, or one without estimates.
    """
    _check(submissions)
    estimates = pd.concat([each.estimates.assign(submission=each.id) for each in submissions], ignore_index=True)
    # Why a method declined is told by the submission's own report; here it is the method of the others.
    estimates["method"] = [method.partition(DECLINED)[0] for method in estimates["method"]]
    apart = distinctions(submissions)
    methods = _methods_in_order(estimates)
    drawn = _drawn_quantities(estimates, list(methods))
    rows: list[dict[str, object]] = []
    for quantity, of_quantity in methods.items():
        for method in of_quantity:
            shared = {
                "quantity": quantity,
                "method": method,
                "drawn": quantity in drawn and method == of_quantity[0],
                "unit": unit_of(quantity),
            }
            chosen = estimates[(estimates["quantity"] == quantity) & (estimates["method"] == method)]
            for submission, distinction in zip(submissions, apart, strict=True):
                identity = _identity(submission, distinction)
                found = chosen[chosen["submission"] == submission.id].to_dict("records")
                rows.extend({**shared, **identity, **answer} for answer in _answers(found))
    dtypes = {column.name: "object" if column.dtype == "str" else column.dtype for column in COMPARISON.columns}
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=dtypes[name]) for name in dtypes})


def distinctions(submissions: Sequence[ComparedSubmission]) -> list[str]:
    """Return for each submission what sets it apart: organism, genome and settings that are not the same for all.

    Where nothing does, that is the organism. Values are cut to a few words; control characters are left out.
    """
    facts: list[list[str]] = [[] for _ in submissions]

    def compare(values: Sequence[str], shown: Sequence[str]) -> None:
        if len(set(values)) > 1:
            for known, text in zip(facts, shown, strict=True):
                known.append(text)

    organisms = [each.organism for each in submissions]
    names = [organism.rpartition("/")[2] for organism in organisms]
    compare(organisms, [_cut(name) for name in (names if len(set(names)) == len(set(organisms)) else organisms)])
    if len(set(organisms)) == 1:
        versions = [each.organism_digest for each in submissions]
        compare(versions, [f"version {_short_digest(digest)}" for digest in versions])
    genomes = [each.genome_digest for each in submissions]
    compare(genomes, [f"genome {_short_digest(digest)}" for digest in genomes])
    for name in dict.fromkeys(name for each in submissions for name in each.settings):
        values = [each.settings.get(name, "unset") for each in submissions]
        compare(values, [f"{name} {_cut(value)}" for value in values])
    return [SEPARATOR.join(known) or _cut(each.organism) for known, each in zip(facts, submissions, strict=True)]


def interval_of(low: float, high: float) -> str:
    """Return an interval as text, with a dash for an end that is missing; empty without any end."""
    return "" if math.isnan(low) and math.isnan(high) else f"{number(low)} to {number(high)}"


def _check(submissions: Sequence[ComparedSubmission]) -> None:
    if len(submissions) < 2:
        raise KnockemError("A comparison takes two submissions at least; `./knockem list` shows them.")
    ids = [each.id for each in submissions]
    twice = [id for id in dict.fromkeys(ids) if ids.count(id) > 1]
    if twice:
        named = listed([id[:_SHORT] for id in twice], _MOST_NAMED)
        raise KnockemError(f"Submission {named} was named more than once; name each submission once.")
    empty = [each for each in submissions if each.estimates.empty]
    if empty:
        states = listed([f"{each.id[:_SHORT]} ({each.state})" for each in empty], _MOST_NAMED)
        raise KnockemError(
            f"There are no estimates of {states}. `./knockem status ID` shows how far a submission is; one that is "
            "completed was asked for no assay that estimates: submit it again with more assayTypes. Or leave it out."
        )


def _methods_in_order(estimates: pd.DataFrame) -> dict[str, list[str]]:
    """Return the quantities, the most important first, each with its methods, the preferred first."""
    preferences: dict[str, list[tuple[tuple[int, bool, int], str]]] = {}
    for (quantity, method), rows in estimates.groupby(["quantity", "method"]):
        valued, bounded = rows.dropna(subset=["value"]), rows.dropna(subset=["low", "high"])
        is_published = any(name in str(method) for name in _PUBLISHED)
        preference = (-valued["submission"].nunique(), is_published, -bounded["submission"].nunique())
        preferences.setdefault(str(quantity), []).append((preference, str(method)))
    return {
        quantity: [method for _, method in sorted(preferences[quantity])]
        for quantity in sorted(preferences, key=lambda name: (_importance(name), name))
    }


def _importance(quantity: str) -> int:
    ranks = (rank for rank, name in enumerate(_IMPORTANCE) if quantity.startswith(name))
    return next(ranks, len(_IMPORTANCE))


def _drawn_quantities(estimates: pd.DataFrame, quantities: Sequence[str]) -> set[str]:
    """Choose what the figure shows: of "sites with effect > c" one c only, that which most submissions have."""
    valued = estimates.dropna(subset=["value"]).groupby("quantity")["submission"].nunique()
    best: dict[int | str, str] = {}
    for quantity in quantities:
        rank = _importance(quantity)
        kind = rank if rank < len(_IMPORTANCE) else quantity
        count = int(valued.get(quantity, 0))
        if count > 0 and (kind not in best or count > int(valued[best[kind]])):
            best[kind] = quantity
    return set(list(best.values())[:MOST_PANELS])


def _identity(submission: ComparedSubmission, distinction: str) -> dict[str, object]:
    return {
        "submission": submission.id,
        "organism": submission.organism,
        "genome": submission.genome_digest,
        "sites": submission.num_sites,
        "state": submission.state,
        "distinction": distinction,
    }


def _answers(found: Sequence[Mapping[Any, Any]]) -> list[dict[str, object]]:
    """Return what one submission has of a quantity by a method; that it has nothing is an answer, too."""
    if not found:
        nothing = dict.fromkeys(("value", "low", "high", "level"), np.nan)
        return [{**nothing, "n": 0, "outcome": Outcome.NOT_ESTIMATED.value}]
    return [
        {
            **{name: row[name] for name in ("value", "low", "high", "level", "n")},
            "outcome": (Outcome.NO_VALUE if math.isnan(row["value"]) else Outcome.ESTIMATED).value,
        }
        for row in found
    ]


def _cut(text: str) -> str:
    """Return a text in one line of a few words, from its end: what tells images apart stands there."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= _MOST_CHARACTERS else f"…{line[1 - _MOST_CHARACTERS :]}"


def _short_digest(digest: str) -> str:
    return digest.rpartition(":")[2][:_SHORT]
