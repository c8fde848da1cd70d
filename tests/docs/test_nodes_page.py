"""The page on nodes: its pools are accepted and can be asked for nodes, and its permissions are the ones needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from knockem_dagster.nodes.node_pools import POOL_KINDS, read_node_pools
from knockem_dagster.nodes.opening import scheduler_of
from knockem_dagster.nodes.schedulers import NodeOrder
from tests.services.kubernetes_api import NAMESPACE, kubernetes_api

PAGE = Path(__file__).parents[2] / "docs" / "nodes.md"
SECTIONS = {"Nodes": "slurm", "Kubernetes": "kubernetes", "AWS Batch": "aws_batch", "Docker Compose": "compose"}
ORDER = NodeOrder("knockem-1", {"KNOCKEM_TOKEN": "a-token"})


def examples(heading: str) -> list[str]:
    section = re.split(rf"^##? {heading}$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    return re.findall(r"^```yaml\n(.*?)^```$", re.split("^## ", section, flags=re.MULTILINE)[0], re.M | re.S)


def test_the_limits_of_workflows_are_some(tmp_path: Path):
    path = tmp_path / "nodes.yaml"
    [example] = examples("SLURM")
    path.write_text(example)
    whole, pools = read_node_pools(path) or pytest.fail("no pools")
    assert whole.workflows is not None and not pools


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_pool_of_each_section_is_one(heading: str, tmp_path: Path):
    path = tmp_path / "nodes.yaml"
    path.write_text(examples(heading)[0])
    found = read_node_pools(path)
    assert found is not None
    [pool] = found[1]
    assert isinstance(pool, POOL_KINDS[SECTIONS[heading]])
    assert "--time-left" in scheduler_of(pool).preview(ORDER)


def test_the_service_is_as_large_as_its_pool(tmp_path: Path):
    path = tmp_path / "nodes.yaml"
    path.write_text(examples("Docker Compose")[0])
    _, [pool] = read_node_pools(path) or pytest.fail("no pools")
    service = yaml.safe_load(examples("Docker Compose")[1])["services"]["worker"]
    assert (service["cpus"], service["mem_limit"]) == (pool.cpus, f"{pool.memory // 1024}g")


def test_the_role_permits_what_is_done_in_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pools, role = (tmp_path / "nodes.yaml", yaml.safe_load(examples("Kubernetes")[1]))
    pools.write_text(examples("Kubernetes")[0].replace("laboratory", "studies"))
    _, [pool] = read_node_pools(pools) or pytest.fail("no pools")
    with kubernetes_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.write_kubeconfig(tmp_path / "config")))
        scheduler = scheduler_of(pool)
        scheduler.ask(ORDER)
        api.forbidden = {("create", "secrets")}
        with pytest.raises(Exception, match="secrets is forbidden"):
            scheduler.ask(NodeOrder("knockem-2", {}))
        scheduler.look({ORDER.name: ORDER.name})
        scheduler.release([ORDER.name])
        done = set(api.done)
    permitted = {(verb, kind) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}
    assert role["metadata"]["namespace"] == NAMESPACE
    assert permitted == done
