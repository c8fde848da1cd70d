"""A benchmark's result in a file: what is finished stays, and an interruption costs only the group under way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.results import Group, Result, measure
from benchmarks.targets import TargetRow

ROWS = [TargetRow("once", 1.5, math.nan, 1, most=2.0, published=5.0, source="reported"), TargetRow.of("twice", [1, 2])]


class Interrupted(Exception):
    pass


class Benchmark:
    """Two groups, of which the second is interrupted as long as `fails`; `measured` tells what was run."""

    def __init__(self) -> None:
        self.fails = False
        self.measured: list[str] = []

    def groups(self, scale: float, seed: int) -> Sequence[Group]:
        def group(name: str, rows: Callable[[], list[TargetRow]]) -> Group:
            def run() -> list[TargetRow]:
                self.measured.append(name)
                return rows()

            return Group(name, run)

        def second() -> list[TargetRow]:
            if self.fails:
                raise Interrupted
            return [TargetRow.of("scale and seed", [scale, float(seed)])]

        return [group("first", lambda: ROWS), group("second", second)]

    def measure(self, path: Path, *, scale: float = 0.5, seed: int = 3) -> list[TargetRow]:
        return measure("statistics", self.groups, scale=scale, seed=seed, path=path)


def names(rows: Sequence[TargetRow]) -> list[str]:
    return [row.name for row in rows]


def test_the_same_command_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    benchmark, path = Benchmark(), tmp_path / "result.json"
    benchmark.fails = True
    with pytest.raises(Interrupted):
        benchmark.measure(path)
    assert list(Result.read(path).groups) == ["first"]
    benchmark.fails = False
    assert names(benchmark.measure(path)) == ["once", "twice", "scale and seed"]
    assert benchmark.measured == ["first", "second", "second"]
    benchmark.measure(path)
    assert len(benchmark.measured) == 3
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(("scale", "seed"), [(0.6, 3), (0.5, 4)])
def test_another_command_measures_everything_anew(tmp_path: Path, scale: float, seed: int) -> None:
    benchmark, path = Benchmark(), tmp_path / "result.json"
    benchmark.measure(path)
    benchmark.measure(path, scale=scale, seed=seed)
    assert benchmark.measured == ["first", "second"] * 2


def test_rows_of_other_code_are_measured_anew(tmp_path: Path) -> None:
    benchmark, path = Benchmark(), tmp_path / "result.json"
    benchmark.measure(path)
    replace(Result.read(path), code="of yesterday").write(path)
    benchmark.measure(path)
    assert benchmark.measured == ["first", "second"] * 2


def test_rows_are_not_kept_when_the_code_changes_while_they_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, path = tmp_path / "checkout" / "benchmarks" / "rows.py", tmp_path / "result.json"
    code.parent.mkdir(parents=True)
    code.write_text("before")
    monkeypatch.setattr(results, "ROOT", tmp_path / "checkout")

    def changing() -> list[TargetRow]:
        code.write_text("after")
        return ROWS

    def groups(scale: float, seed: int) -> list[Group]:
        return [Group("steady", lambda: ROWS), Group("changing", changing)]

    with pytest.raises(ValueError, match="the code was changed while 'changing' was measured"):
        measure("statistics", groups, scale=1, seed=1, path=path)
    assert list(Result.read(path).groups) == ["steady"]


def test_a_result_tells_its_command_commit_day_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    Benchmark().measure(path, scale=1.0, seed=7)
    result = Result.read(path)
    assert result.command == "./knockem bench statistics --scale 1 --seed 7"
    assert result.commit
    assert len(result.date.split("-")) == 3
    assert set(result.versions) == {"python", "numpy", "scipy"}
    kept = json.loads(path.read_text())["groups"]["first"][0]
    assert (kept["standard_error"], kept["verdict"]) == (None, "undecided")


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    Benchmark().measure(path)
    once, twice = Result.read(path).groups["first"]
    assert math.isnan(once.standard_error)
    assert replace(once, standard_error=0.0) == replace(ROWS[0], standard_error=0.0)
    assert twice == ROWS[1]


@pytest.mark.parametrize("content", ["[]", '{"groups": []}', '{"groups": {}}', '{"groups": {"a": [{}]}}', "no JSON"])
def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"result\.json is not a benchmark's result"):
        Benchmark().measure(path)
    assert path.read_text() == content
