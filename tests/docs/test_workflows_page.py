"""The page on workflows: it names all that is checked and has no effect so far."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from knockem_dagster.jobs.specs import job_graph

PAGE = Path(__file__).parents[2] / "docs" / "workflows.md"
KEYS = (*job_graph._WITHOUT_EFFECT, *job_graph._OF_JOBS, *job_graph._OF_SCHEDULERS, *job_graph._OF_ACTIONS)


@pytest.mark.parametrize("key", [*KEYS, "num_nodes", "schedule_nodes"])
def test_what_has_no_effect_is_named(key: str) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Without effect so far")[2].partition("\n## ")[0]
    named = re.findall(r"`([a-z_]+)`", section)
    assert any(key == name or (name.endswith("_") and key.startswith(name)) for name in named)
