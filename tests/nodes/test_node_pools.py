"""The file of node pools: what its keys mean, and every fault of a wrong one at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from knockem_dagster.errors import InvalidInput
from knockem_dagster.jobs.requirements import Capacity
from knockem_dagster.nodes.node_pools import SlurmPool, read_node_pools
from knockem_dagster.nodes.opening import has_workflow_limits, pools_of_settings, scheduler_of
from knockem_dagster.nodes.schedulers import NodeOrder
from knockem_dagster.settings import load_settings
from tests.services.pools import slurm_pool

GOOD = """
url: http://login1:3001/
pools:
  - name: short
    scheduler: slurm
    cpus: 16
    memory: 64g
    walltime: 04:00:00
    max_nodes: 10
    max_node_hours: 200
workflows: {max_nodes: 4, max_node_hours: 50, cpus: 8, memory: 16g}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "nodes.yaml"
    path.write_text(text)
    return path


def test_a_pool_says_what_its_nodes_offer(tmp_path: Path) -> None:
    found = read_node_pools(written(tmp_path, GOOD))
    assert found is not None
    whole, [pool] = found
    assert whole.url == "http://login1:3001" and whole.workflows is not None
    assert isinstance(pool, SlurmPool)
    runtimes = frozenset({"command", "process"})
    assert pool.capacity == Capacity(cpus=16, memory_mib=65536, gpus=0, seconds_left=14280, runtimes=runtimes)


def test_no_file_is_no_fault_unless_it_was_named(tmp_path: Path) -> None:
    assert read_node_pools(tmp_path / "nodes.yaml") is None
    assert pools_of_settings(load_settings(home=tmp_path)) is None
    with pytest.raises(InvalidInput) as caught:
        pools_of_settings(load_settings(home=tmp_path, nodes=tmp_path / "nodes.yml"))
    [fault] = caught.value.faults
    assert "nodes.yml" in fault.value and "No such file" in fault.allowed


def test_whose_schedulers_are_used_is_told_by_the_file(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, nodes=tmp_path / "nodes.yaml")
    for text, expected in ((GOOD, True), (GOOD.partition("workflows")[0], False), ("nonsense: 1", False)):
        written(tmp_path, text)
        assert has_workflow_limits(settings) is expected


def test_a_walltime_is_counted_as_it_is_asked_for() -> None:
    pool = slurm_pool(walltime="00:05:30")
    assert pool.walltime == 360
    order = NodeOrder("knockem-1", {})
    assert "--time=0-00:06:00" in scheduler_of(pool).preview(order)


def test_other_options_of_sbatch_are_taken() -> None:
    options = ("--exclusive", "--account=a", "-Aa", "-pall", "--wckey=w", "--wait-all-nodes=1", "-H")
    assert slurm_pool(extra=options).extra == options


def test_pools_that_differ_are_told_apart(tmp_path: Path) -> None:
    digests = set()
    for memory in ("64g", "32g", "65536m"):
        found = read_node_pools(written(tmp_path, GOOD.replace("64g", memory)))
        assert found is not None
        digests.add(found[1][0].digest)
    assert len(digests) == 2, "65536m is 64g"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("pools: []", ["url"]),
        (GOOD.replace("url:", "uri:").replace("cpus: 16", "cpus: 0"), ["url", "uri", "pools[0].cpus"]),
        (GOOD.replace("http:", "ftp:"), ["url"]),
        (GOOD.replace("slurm", "pbs"), ["pools[0].scheduler"]),
        (GOOD.replace("cpus: 16", "cpus: 0\n    partitoin: p"), ["cpus", "partitoin"]),
        (GOOD.replace("04:00:00", "soon").replace("64g", "lots"), ["walltime", "memory"]),
        (GOOD.replace("04:00:00", "00:00:30"), ["walltime"]),
        (GOOD.replace("name: short", "name: a/b"), ["name"]),
        (GOOD.replace("    max_node_hours: 200\n", ""), ["max_node_hours"]),
        (GOOD.replace("cpus: 16", "cpus: 16\n    extra: [wrap=rm]"), ["extra[0]"]),
        *(
            (GOOD.replace("cpus: 16", f"cpus: 16\n    extra: ['{option}']"), ["extra[0]"])
            for option in ("--array=0-9", "--arr=0-9", "-a0-9", "-Ha0-9", "--wrap=true", "--wr=true", "--", "-a")
        ),
        (GOOD.replace("slurm", "kubernetes\n    runtimes: [command]"), ["pools[0].image", "pools[0].runtimes"]),
        (GOOD.replace("workflows:", "- x\nworkflows:"), ["(file)"]),
        (GOOD.replace("workflows:", "  - scheduler\nworkflows:"), ["pools[1].scheduler"]),
    ],
)
def test_every_fault_is_told(tmp_path: Path, text: str, faults: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_node_pools(written(tmp_path, text))
    told = [fault.field for fault in caught.value.faults]
    assert all(any(place.endswith(each) for place in told) for each in faults), told


def test_a_near_miss_is_told_what_was_meant(tmp_path: Path) -> None:
    text = GOOD.replace("cpus: 16", "cpus: 16\n    partitoin: p")
    with pytest.raises(InvalidInput, match="the nearest is partition"):
        read_node_pools(written(tmp_path, text))


def test_two_pools_of_a_name_are_refused(tmp_path: Path) -> None:
    pool = GOOD.partition("pools:\n")[2].partition("workflows")[0]
    with pytest.raises(InvalidInput, match="a name of its own"):
        read_node_pools(written(tmp_path, GOOD.replace("workflows:", f"{pool}workflows:")))
