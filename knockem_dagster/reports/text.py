"""The report as plain text: what it says first, and its methods paragraph. For terminals and mail."""

from __future__ import annotations

from knockem_dagster.reports.first_screen import first_screen
from knockem_dagster.reports.inputs import ReportInputs
from knockem_dagster.reports.methods import methods_paragraph
from knockem_dagster.reports.study_facts import StudyFacts


def report_text(inputs: ReportInputs) -> str:
    """Return a line for each sentence, then the methods paragraph after an empty line."""
    methods = methods_paragraph(StudyFacts(inputs.table("study")))
    lines = [f"- {sentence.plain}" for sentence in first_screen(inputs)]
    return "\n".join([*lines, *(["", "Methods", "", methods] if methods else []), ""])
