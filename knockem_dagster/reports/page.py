"""One submission as one self-contained HTML page: no outside resource, nothing unescaped, no script but report.js."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from knockem_dagster.reports.caveats import loss_details
from knockem_dagster.reports.first_screen import first_screen
from knockem_dagster.reports.inputs import SUCCEEDED, FailedAttempt, Quantity, ReportInputs, SubmissionFacts
from knockem_dagster.reports.methods import methods_paragraph
from knockem_dagster.reports.script import SCRIPT, SCRIPT_SOURCE
from knockem_dagster.reports.sections import sections
from knockem_dagster.reports.site_table import site_table
from knockem_dagster.reports.spoken import coverage_text, interval_text
from knockem_dagster.reports.study_facts import StudyFacts, untestable_of
from knockem_dagster.reports.truth import with_truth
from knockem_dagster.reports.wording import MISSING, last_part, moment, number, share

_MOST_EXAMPLES = 5
_TAIL_CHARACTERS = 2_000

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class _Estimate:
    quantity: str
    value: str
    interval: str
    truth: str
    method: str
    n: str


@dataclass(frozen=True, slots=True)
class _Bar:
    """A count beside its share of the largest (0 to 100) and of the whole."""

    name: str
    count: str
    length: float
    share: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Example:
    outcome: str
    exit_code: str
    tail: str


def render(template: str, **values: object) -> str:
    """Fill one of this package's templates; everything is escaped but what was marked safe in the template."""
    return _TEMPLATES.get_template(template).render(values)


def report_page(inputs: ReportInputs) -> str:
    """Return the report of one submission as HTML, ready to be stored as UTF-8."""
    estimates = inputs.table("estimates")
    told = None if estimates is None else with_truth(estimates, inputs.truth, resolution=inputs.submission.resolution)
    submission = inputs.submission
    return render(
        "report.html",
        submission=submission,
        num_sites=f"{submission.num_sites:,}",
        submitted=moment(submission.submitted),
        finished="not finished" if submission.finished is None else f"finished {moment(submission.finished)}",
        sentences=first_screen(inputs),
        methods=methods_paragraph(StudyFacts(inputs.table("study"))),
        estimates=[] if told is None else _estimates(told),
        has_truth=inputs.truth is not None,
        sections=sections(inputs),
        table=site_table(inputs.table("sites")),
        script=SCRIPT,
        script_source=SCRIPT_SOURCE,
        file_stem=f"knockout-{submission.id[:8]}",
        assays=_assays(inputs),
        attempts=_bars(inputs.losses.attempts),
        succeeded=SUCCEEDED,
        examples=[_example(each) for each in inputs.losses.examples[:_MOST_EXAMPLES]],
        lost=loss_details(inputs.losses),
        provenance=_provenance(submission),
        settings=[(name, str(value)) for name, value in submission.settings.items()],
    )


def _estimates(estimates: pd.DataFrame) -> list[_Estimate]:
    rows: list[_Estimate] = []
    for row in _in_reading_order(estimates).to_dict("records"):
        value = float(row["value"])
        rows.append(
            _Estimate(
                quantity=str(row["quantity"]),
                value=number(value) if math.isfinite(value) else "not possible",
                interval=_interval(float(row["low"]), float(row["high"]), float(row["level"])),
                truth=number(float(row["truth"])),
                method=str(row["method"]),
                n=f"{int(row['n']):,}",
            )
        )
    return rows


def _in_reading_order(estimates: pd.DataFrame) -> pd.DataFrame:
    """Return the estimates in the order of `Quantity`, unknown quantities last."""
    order = {quantity.value: rank for rank, quantity in enumerate(Quantity)}
    ranks = [order.get(str(quantity), len(order)) for quantity in estimates["quantity"]]
    return estimates.assign(rank=ranks).sort_values("rank", kind="stable").drop(columns="rank")


def _interval(low: float, high: float, level: float) -> str:
    ends, coverage = interval_text(low, high), coverage_text(level)
    if not ends:
        return "none"
    return f"{ends} ({coverage})" if coverage else ends


def _bars(counts: Mapping[str, int]) -> list[_Bar]:
    largest, whole = max(counts.values(), default=0), sum(counts.values())
    return [
        _Bar(name, f"{count:,}", round(100 * count / largest, 2) if largest else 0, share(count, whole))
        for name, count in counts.items()
    ]


def _assays(inputs: ReportInputs) -> list[_Bar]:
    """Return what each assay asked for, and how much of that no attempt could complete."""
    facts = StudyFacts(inputs.table("study"))
    bars = _bars(inputs.competitions_by_assay)
    return [replace(bar, note=facts.shown(untestable_of(bar.name))) for bar in bars]


def _example(example: FailedAttempt) -> _Example:
    return _Example(
        outcome=example.outcome,
        exit_code="no exit code" if example.exit_code is None else f"exit code {example.exit_code}",
        tail=last_part(example.tail, characters=_TAIL_CHARACTERS),
    )


def _provenance(submission: SubmissionFacts) -> list[tuple[str, str]]:
    return [
        ("Submission", submission.id),
        ("Submitted by", submission.user_email or MISSING),
        ("Submitted", moment(submission.submitted)),
        ("Finished", moment(submission.finished)),
        ("Organism", submission.organism),
        ("Image digest", submission.digest or MISSING),
        ("Runtime", submission.runtime),
        ("Sites", f"{submission.num_sites:,}"),
        ("Genome digest", submission.genome_digest),
        ("Assays", ", ".join(submission.assay_types)),
        ("Seed", str(submission.seed)),
        ("Software revision", submission.revision),
    ]
