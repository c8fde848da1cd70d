"""The first screen of a report: at most eight plain sentences, what a reader must know before the rest on top."""

from __future__ import annotations

from knockem_dagster.reports.caveats import cost_sentence, declined_sentence, untested_sentence
from knockem_dagster.reports.inputs import ReportInputs
from knockem_dagster.reports.sentences import (
    Sentence,
    additive_sentence,
    alone_sentence,
    functional_sentence,
    further_sentences,
    minimal_sentence,
    named_sentence,
    set_sentence,
    unresolved_sentence,
)
from knockem_dagster.reports.spoken import Estimate, estimates_of
from knockem_dagster.reports.truth import true_values

MOST_SENTENCES = 8

_FINDINGS = (functional_sentence, additive_sentence, named_sentence, set_sentence, minimal_sentence)


def first_screen(inputs: ReportInputs) -> list[Sentence]:
    """Return what the report says first: warnings, findings, what was not tested, and what it took."""
    table = inputs.table("estimates")
    estimates: dict[str, list[Estimate]] = {} if table is None else estimates_of(table)
    truth = {} if inputs.truth is None else true_values(inputs.truth, inputs.submission.resolution)
    caveats = [
        declined_sentence(estimates),
        untested_sentence(inputs),
        cost_sentence(inputs.losses, inputs.competitions_by_assay),
    ]
    findings = [
        *(tell(inputs, estimates, truth) for tell in _FINDINGS),
        unresolved_sentence(inputs),
        alone_sentence(inputs, estimates, truth),
    ]
    around = [each for each in caveats if each is not None]
    told = [*(each for each in findings if each is not None), *further_sentences(estimates)]
    told = told[: MOST_SENTENCES - len(around)]
    warnings = [each for each in around if each.warns]
    return [*warnings, *told, *(each for each in around if not each.warns)]
