"""The report of a real study: its text, and the tables that its numbers stand in, as `export` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from knockem_dagster.assay_runs.export import export
from knockem_dagster.records.assays import PUBLISHED_ASSAYS
from knockem_dagster.records.submissions import State
from knockem_dagster.reports.first_screen import MOST_SENTENCES
from tests.reports.numbers import numbers_not_in
from tests.services.platforms import platform_of, run_in_dagster, study, submitted

GENOME = {
    "sites": 60,
    "effects": {"2": 0.9, "5": 0.6, "17": 0.7, "44": 0.8},
    "sets": [{"sites": [11, 14, 51], "penalty": 1.4}],
}
NOISY = {"containerEnv": {"EXPLICIT_MODE": "wright-fisher"}, "resolution": 0.4, "budget": 1_500}
STUDIES: dict[str, dict[str, object]] = {
    "weighed": {**NOISY, "assayTypes": None},
    "published": {
        "containerEnv": {"EXPLICIT_MODE": "exact"},
        "assayTypes": [assay_type.value for assay_type in PUBLISHED_ASSAYS if assay_type.value != "doseTitration"],
    },
}


@dataclass(frozen=True)
class Exported:
    """A study's exported folder."""

    folder: Path

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv", dtype="str", keep_default_na=False)

    @property
    def sentences(self) -> list[str]:
        told = (self.folder / "report.txt").read_text().partition("\n\n")[0]
        return [line.removeprefix("- ") for line in told.splitlines()]

    @property
    def methods(self) -> str:
        return (self.folder / "report.txt").read_text().partition("Methods\n\n")[2]


@pytest.fixture(scope="module", params=STUDIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder = tmp_path_factory.mktemp("study")
    home, out = folder / "home", folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KNOCKEM_ENVIRONMENT", "testing")
        id = submitted(home, study(containerImage="explicit", genome=json.dumps(GENOME), **STUDIES[request.param]))
        with dg.DagsterInstance.ephemeral() as instance:
            run_in_dagster(home, instance, id)
        platform = platform_of(home)
        submission = platform.records.submissions.get(id)
        assert submission.state is State.COMPLETED, submission.reason
        export(platform, submission, out)
        platform.close()
        yield Exported(out)


def test_every_number_of_the_methods_stands_in_the_exported_table(exported: Exported) -> None:
    assert len(exported.methods.split()) > 150
    assert numbers_not_in(exported.methods, exported.table("study")) == []


def test_the_study_table_agrees_with_the_others(exported: Exported) -> None:
    facts = exported.table("study").set_index("name")["value"]
    assert int(facts["competitions"]) == len(exported.table("competitions"))
    assert int(facts["genome: sites"]) == len(exported.table("sites")) == 60
    findings = exported.table("sites")["finding"]
    assert int(facts["sites not resolved"]) == (findings == "not resolved").sum()
    by_assay = facts[facts.index.str.fullmatch(r"competitions of \w+")].astype(int)
    assert by_assay.sum() == int(facts["competitions"])
    document = json.loads((exported.folder / "submission.json").read_text())
    assert facts["submission"] == document["id"]
    assert facts["organism: digest"] == document["imageDigest"]


def test_every_estimate_has_its_unit(exported: Exported) -> None:
    table = exported.table("estimates")
    is_effect = table["quantity"].str.contains("effect of")
    assert set(table.loc[is_effect, "unit"]) <= {"detection thresholds"}
    assert set(table.loc[~is_effect, "unit"]) <= {"sites", "sets"}
    assert len(table) > 3


def test_the_text_has_at_most_eight_sentences_and_calls_no_site_neutral(exported: Exported) -> None:
    told = exported.sentences
    assert 4 <= len(told) <= MOST_SENTENCES
    assert sum("not resolved" in sentence for sentence in told) == 1
    assert sum("competitions were asked for" in sentence for sentence in told) == 1
    assert not any("neutral" in sentence for sentence in told)
