"""The fragment for the Total Perspective Vortex says what was recommended, and that program takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.recommendations import Recommendation, recommend
from knockem_dagster.joblogs.sizing.chosen import FEWEST
from knockem_dagster.joblogs.sizing.rule import Rule
from knockem_dagster.joblogs.tpv import GIB, expression, fragment
from tests.joblogs.test_recommendations import job, opened
from tests.services.job_play import record_in
from tests.services.joblogs import REAL

TPV = ("total-perspective-vortex==3.3.0", "galaxy-app==26.1.2")
SHED = "toolshed.g2.bx.psu.edu/repos/owner/repository"
JOB_CONF = """
runners:
  local: {load: galaxy.jobs.runners.local:LocalJobRunner}
execution:
  default: tpv_dispatcher
  environments:
    tpv_dispatcher: {runner: dynamic, type: python, function: map_tool_to_destination, rules_module: tpv.rules}
    local: {runner: local}
"""
DESTINATIONS = """
destinations:
  local:
    runner: local
    max_accepted_cores: 64
    max_accepted_mem: 1024
    params: {cores: "{cores}", mem: "{mem}"}
"""


@pytest.fixture(scope="module")
def recommended(tmp_path_factory: pytest.TempPathFactory) -> list[Recommendation]:
    """Return what is recommended for the larger real archive."""
    archive = max(REAL, key=lambda each: each.stat().st_size)
    with record_in(tmp_path_factory.mktemp("home")) as platform:
        instance = local_instance(platform.records, "ours").id
        Ledger(platform.records, platform.objects).receive(
            instance, "0", archive, archive.with_name("0.json").read_bytes()
        )
        marts = Marts(platform.records, platform.objects)
        marts.refresh(instance)
        with marts.opened([instance]) as found:
            return recommend(found)


def called(tool_id: str) -> str:
    """Return how Galaxy calls a tool: one of a Tool Shed with its version."""
    return f"{tool_id}/9.9" if tool_id.count("/") == SHED.count("/") + 1 else tool_id


def matching(told: Iterable[str], id: str) -> list[str]:
    """Return the patterns that match an id, as the program itself matches them."""
    return [pattern for pattern in told if re.compile(pattern).match(id)]


def evaluated(rule: Rule, size: float) -> float:
    """Return what the expression gives in bytes."""
    return GIB * eval(expression(rule), {"max": max, "min": min, "input_size": size / GIB})


@given(st.floats(1e6, 1e11), st.floats(0, 50), st.floats(0.1, 3), st.floats(1e6, 1e10), st.floats(0, 1e12))
def test_the_expression_gives_what_the_rule_does(
    base: float, factor: float, power: float, least: float, size: float
) -> None:
    rule = Rule(base, factor * 1e9 ** (1 - power), round(power, 3), least, 1e11, otherwise=base)
    expected = float(rule.of(np.array([size]))[0])
    assert evaluated(rule, size) == pytest.approx(expected, rel=0.02)


@given(st.floats(-1e11, -1e6), st.floats(1, 50), st.floats(1e6, 1e12))
def test_the_expression_is_never_below_a_rule_that_begins_below_zero(base: float, factor: float, size: float) -> None:
    rule = Rule(base, factor, least=1e6, most=1e13, otherwise=1e9)
    assert evaluated(rule, size) >= float(rule.of(np.array([size]))[0]) * (1 - 1e-9)


def test_a_number_is_rounded_up() -> None:
    assert expression(Rule(GIB * 1.2301)) == "1.24" and expression(Rule(GIB * 12.3)) == "12.3"
    assert expression(Rule(GIB * 1023.2)) == "1024" and expression(Rule(GIB * 0.0301)) == "0.0301"


def test_only_tools_of_which_enough_is_known_are_there(recommended: list[Recommendation]) -> None:
    told = yaml.safe_load(fragment(recommended, name="ours"))["tools"]
    known = {each.tool_id for each in recommended if each.memory is not None}
    few = [each.tool_id for each in recommended if each.is_too_few and not each.tool_version]
    assert known and few
    assert all(len(matching(told, called(tool_id))) == 1 for tool_id in known)
    assert not any(matching(told, called(tool_id)) for tool_id in few)
    assert yaml.safe_load(fragment([], name='"odd"\nname'))["tools"] == {}


@pytest.mark.parametrize(
    ("known", "few"),
    [("cat", "cat_x"), ("a+b", "aab"), (f"{SHED}/cat/1.0", f"{SHED}/cat/1.0.1"), (f"{SHED}/cat", f"{SHED}/cat_x")],
)
def test_a_tool_is_not_given_what_another_is_whose_id_begins_like_its_own(known: str, few: str) -> None:
    jobs = [*(job(id, tool=known) for id in range(FEWEST)), job(FEWEST, tool=few)]
    told = yaml.safe_load(fragment(recommend(opened(*jobs)), name="ours"))["tools"]
    assert matching(told, called(known)) == list(told) and len(told) == 1
    assert matching(told, called(few)) == []


@pytest.fixture(scope="module")
def tpv(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install the program itself, with the part of Galaxy that it asks, into an environment of its own."""
    folder = tmp_path_factory.mktemp("tpv")
    uv = shutil.which("uv")
    if uv is not None:
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder / "venv"], check=True)
        install = [uv, "pip", "install", "-q", "--python", folder / "venv/bin/python"]
    else:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        install = [folder / "venv/bin/python", "-m", "pip", "install", "-q"]
    if subprocess.run([*install, *TPV], check=False).returncode:
        pytest.skip("the Total Perspective Vortex cannot be installed here")
    yield folder / "venv/bin/tpv"
    shutil.rmtree(folder)


def test_the_program_takes_the_fragment_and_gives_what_it_says(
    tpv: Path, recommended: list[Recommendation], tmp_path: Path
) -> None:
    tools, destinations, job_conf = (tmp_path / name for name in ("tools.yml", "destinations.yml", "job_conf.yml"))
    destinations.write_text(DESTINATIONS)
    job_conf.write_text(JOB_CONF)

    def run(*arguments: object) -> str:
        done = subprocess.run([tpv, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    whole = [each for each in recommended if not each.tool_version]
    known = [each for each in whole if each.memory is not None and each.cores is not None]
    by_size = [each for each in known if each.memory is not None and each.memory.rule.depends_on_size]
    chosen = [*by_size[:2], *[each for each in known if each not in by_size][:1]]
    ids = {each.tool_id for each in chosen}
    tools.write_text(fragment([each for each in recommended if each.tool_id in ids], name="ours"))
    assert "lint successful" in run("lint", tools)
    for each in chosen:
        assert each.memory is not None
        asked = ("--tool", called(each.tool_id), "--input-size", 3)
        told = run("dry-run", "--job-conf", job_conf, *asked, destinations, tools)
        given_cores, given_memory = (re.search(rf"{name}['\"]?: ['\"]?([0-9.]+)", told) for name in ("cores", "mem"))
        assert given_cores is not None and given_memory is not None, told
        assert int(given_cores[1]) == each.cores
        expected = float(each.memory.rule.of(np.array([3 * GIB]))[0]) / GIB
        assert float(given_memory[1]) == pytest.approx(expected, rel=0.02)
