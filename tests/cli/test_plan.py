"""`plan`: what a study will take, told before anything is stored."""

from __future__ import annotations

import json
from pathlib import Path

from tests.services.command_line import knockem

GENOME = {"sites": 60, "effects": {str(site): 0.5 for site in range(0, 60, 6)}, "sets": []}


def study(folder: Path, **changes: object) -> Path:
    content = {
        "genome": json.dumps(GENOME),
        "containerImage": "explicit",
        "containerEnv": {"EXPLICIT_MODE": "exact"},
        "userEmail": "someone@example.org",
        **changes,
    }
    path = folder / "study.json"
    path.write_text(json.dumps(content))
    return path


def test_plan_tells_ranges_and_stores_nothing_then_knows_the_rate(tmp_path: Path) -> None:
    home, file = tmp_path / "home", study(tmp_path)
    timed = json.loads(knockem("plan", file, "--json", home=home).stdout)
    assert [need["functionalShare"] for need in timed["needs"]] == [0.01, 0.05, 0.1]
    assert all(0 < low < high for low, high in (need["competitions"] for need in timed["needs"]))
    assert timed["rateFrom"] == "3 timed competitions"
    assert json.loads(knockem("list", "--json", home=home).stdout) == []

    done = knockem("submit", file, "--wait", "--json", home=home)
    assert json.loads(done.stdout)["state"] == "completed", done.stderr
    known = knockem("plan", file, home=home)
    assert known.returncode == 0, known.stderr
    assert "an earlier study with this organism" in known.stdout
    assert "10%" in known.stdout


def test_plan_says_what_cannot_be_planned(tmp_path: Path) -> None:
    missing = knockem("plan", tmp_path / "nothing.yaml", home=tmp_path / "home")
    assert missing.returncode == 1
    assert "cannot be read" in missing.stderr
    published = knockem("plan", study(tmp_path, assayTypes=["screenCritical"]), home=tmp_path / "home")
    assert published.returncode == 1
    assert "weighing" in published.stderr


def test_skeletons_by_prefix_search_are_planned_and_published_ones_are_named_as_left_out(tmp_path: Path) -> None:
    home, both = tmp_path / "home", ["prefixSkeletons", "skeletonization"]
    planned = json.loads(knockem("plan", study(tmp_path, assayTypes=both), "--json", home=home).stdout)
    assert planned["leftOut"] == ["skeletonization"]
    fewer = json.loads(knockem("plan", study(tmp_path, assayTypes=both, skeletons=2), "--json", home=home).stdout)
    assert fewer["needs"][2]["competitions"][1] < planned["needs"][2]["competitions"][0]
    told = knockem("plan", study(tmp_path, assayTypes=both), home=home)
    assert "on top of that: skeletonization" in told.stdout


def test_a_budget_bounds_the_plan_and_the_study(tmp_path: Path) -> None:
    home, file = tmp_path / "home", study(tmp_path, budget=60)
    planned = json.loads(knockem("plan", file, "--json", home=home).stdout)
    assert max(high for _, high in (need["competitions"] for need in planned["needs"])) <= 60
    done = knockem("submit", file, "--wait", "--json", home=home)
    assert json.loads(done.stdout)["state"] == "completed", done.stderr
    [record] = json.loads(knockem("list", "--json", home=home).stdout)
    assert record["done"] <= 60
