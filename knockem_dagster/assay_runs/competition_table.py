"""A submission's competitions as a table, read from the record a page at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from knockem_dagster.knockout.competitions import score
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.competitions import CompetitionRecord, CompetitionResultRecord
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.records.tables import Column
from knockem_dagster.stores.paging import pages

PAGE = 5_000
"""Competitions read at a time."""

ANSWERED = "answered"
UNANSWERED = "unanswered"

COMPETITION_COLUMNS: tuple[Column, ...] = (
    Column("id", "str", "", "the competition's id"),
    Column("assay", "str", "", "the assay that asked"),
    Column("purpose", "str", "", "why it was asked"),
    Column("replicate", "int64", "", "number of the replicate, from 0"),
    Column("alpha_dose", "int64", "sites", "sites knocked out of the background"),
    Column("beta_dose", "int64", "sites", "sites knocked out of the challenger"),
    Column("updates", "float64", "updates", "updates elapsed; missing where unanswered"),
    Column("num_alpha", "float64", "individuals", "background individuals at the end; missing where unanswered"),
    Column("num_beta", "float64", "individuals", "challenger individuals at the end; missing where unanswered"),
    Column("score", "float64", "1/update", "(fracAlpha - fracBeta) / updatesElapsed; missing where unanswered"),
    Column("outcome", "str", "", "answered, or unanswered: not tested yet, or given up as untestable"),
)


def competition_pages(records: Records, submission: SubmissionRecord) -> Iterator[pd.DataFrame]:
    """Yield the competitions in pages of at most PAGE rows; no page at all when none was asked."""
    assays = {assay.id: assay.assay_type.value for assay in records.assays.find({"submissionId": submission.id})}
    competitions = records.competitions.find({"submissionId": submission.id})
    for page in pages(competitions, PAGE):
        answers = records.competition_results.get_many([competition.id for competition in page])
        doses = _doses(records, {competition.genome_id_alpha for competition in page})
        rows = [
            _row(
                competition,
                answers.get(competition.id),
                assays[competition.assay_id],
                doses[competition.genome_id_alpha],
            )
            for competition in page
        ]
        yield competition_frame(rows)


def competition_frame(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    """Return rows in the order of COMPETITION_COLUMNS as a DataFrame with their dtypes."""
    frame = pd.DataFrame(rows, columns=[column.name for column in COMPETITION_COLUMNS])
    return frame.astype({column.name: column.dtype for column in COMPETITION_COLUMNS})


def _row(
    competition: CompetitionRecord, answer: CompetitionResultRecord | None, assay: str, alpha_dose: int
) -> tuple[object, ...]:
    counts = None if answer is None else answer.result.to_counts()
    return (
        competition.id,
        assay,
        competition.purpose,
        competition.replicate,
        alpha_dose,
        competition.num_knockout_sites,
        None if counts is None else counts.updates_elapsed,
        None if counts is None else counts.num_alpha,
        None if counts is None else counts.num_beta,
        None if counts is None else score(counts),
        UNANSWERED if counts is None else ANSWERED,
    )


def _doses(records: Records, genome_ids: set[str]) -> dict[str, int]:
    """Return how many sites are knocked out of each genome. The wild type has no bitset: a dose of 0."""
    genomes = records.genomes.get_many(list(genome_ids))
    return {
        id: 0
        if genome.knockout_bitset is None
        else KnockoutSet.from_bitset(genome.knockout_bitset, genome.num_sites).dose
        for id, genome in genomes.items()
    }
