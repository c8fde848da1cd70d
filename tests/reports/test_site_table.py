from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knockem_dagster.records.tables import TABLES, Column
from knockem_dagster.reports.site_table import ROWS_SHOWN, SiteTable, site_table

maybe = st.one_of(st.just(math.nan), st.floats(-50, 50, allow_nan=False))


def sites(effects: list[float], kept: list[float]) -> pd.DataFrame:
    effect = np.array(effects, dtype=np.float64)
    return pd.DataFrame(
        {
            "site": np.arange(effect.size),
            "effect": effect,
            "low": effect - 1,
            "high": effect + 1,
            "probability": np.array(kept, dtype=np.float64),
            "set": -1,
            "finding": "not resolved",
        }
    )


def made(table: pd.DataFrame) -> SiteTable:
    found = site_table(table)
    assert found is not None
    return found


def data(table: pd.DataFrame) -> pd.DataFrame:
    """The table that the page's data holds."""
    held = json.loads(made(table).data)
    names = [column["name"] for column in held["columns"]]
    return pd.DataFrame(dict(zip(names, held["values"], strict=True)))


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(maybe, maybe), min_size=1, max_size=150))
def test_data_is_every_site_with_the_strongest_evidence_first(rows: list[tuple[float, float]]) -> None:
    table = sites([effect for effect, _ in rows], [abs(kept) / 50 for _, kept in rows])
    if table[["effect", "probability"]].isna().all(axis=None):
        assert site_table(table) is None
        return
    held = data(table)
    back = held.sort_values("site").reset_index(drop=True)
    for name in ("site", "effect", "low", "high", "probability"):
        np.testing.assert_allclose(back[name].astype(float), table[name], rtol=1e-5)
    ranks = [(0, -kept) if math.isfinite(kept) else (1, 0.0) for kept in held["probability"].astype(float)]
    assert ranks == sorted(ranks)
    known = int(table[["effect", "probability"]].notna().any(axis=1).sum())
    assert len(made(table).rows) == min(known, ROWS_SHOWN)
    assert made(table).num_sites == len(table)


def test_no_set_is_missing_and_not_minus_one() -> None:
    table = sites([1.0, 2.0], [0.5, 0.4]).assign(set=[-1, 0])
    assert data(table)["set"].tolist()[1] == 0
    assert math.isnan(data(table)["set"].tolist()[0])
    assert [row[-2] for row in made(table).rows] == ["–", "0"]


def test_numbers_are_told_as_everywhere_in_the_report() -> None:
    table = sites([-1.234, math.nan], [1.0, 0.001]).assign(site=[1_234, 5])
    assert made(table).rows == (
        ("1,234", "−1.23", "−2.23", "−0.23", "1.00", "–", "not resolved"),
        ("5", "–", "–", "–", "0.00", "–", "not resolved"),
    )


def test_a_declared_column_of_words_comes_along_and_cannot_end_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = TABLES["sites"]
    verdict = Column("verdict", "str", "", "what the assays concluded")
    critical = Column("critical", "bool", "", "whether it is critical")
    monkeypatch.setitem(TABLES, "sites", replace(declared, columns=(*declared.columns, verdict, critical)))
    table = sites([1.0, 2.0], [0.9, 0.1]).assign(verdict=["</script><b>", None], critical=[True, False])
    assert "<" not in made(table).data
    assert json.loads(made(table).data)["values"][-2] == ["</script><b>", None]
    assert [row[-2:] for row in made(table).rows] == [("</script><b>", "yes"), ("–", "no")]
    assert made(table).columns[-2].decimals is None
