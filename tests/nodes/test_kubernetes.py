"""Nodes of Kubernetes: through the real client, against a small API on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient

from knockem_dagster.nodes.kubernetes_objects import LABEL, job_of, secret_of
from knockem_dagster.nodes.node_pools import KubernetesPool
from knockem_dagster.nodes.opening import scheduler_of
from knockem_dagster.nodes.schedulers import NodeOrder, NodeRefused, NodeSight, Scheduler, SchedulerAway, node_name
from knockem_dagster.records.nodes import NodeState
from knockem_dagster.records.record import new_id
from tests.services.kubernetes_api import NAMESPACE, KubernetesApi, kubernetes_api
from tests.services.kubernetes_api import TOKEN as API_TOKEN

TOKEN = "the-token-of-a-worker"
STARTED, ENDED = "2026-01-02T03:10:00Z", "2026-01-02T04:00:00Z"
POOL = {
    "name": "pods",
    "scheduler": "kubernetes",
    "cpus": 1.5,
    "memory": "2g",
    "gpus": 1,
    "walltime": "02:00:00",
    "max_nodes": 4,
    "max_node_hours": 100,
    "image": "example.org/knockem:1",
    "namespace": NAMESPACE,
    "context": "studies",
    "service_account": "workers",
    "image_pull_secrets": ["registry"],
    "node_selector": {"pool": "spot"},
    "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    with kubernetes_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.write_kubeconfig(tmp_path / "config")))
        yield api


@pytest.fixture
def scheduler(api: KubernetesApi) -> Scheduler:
    return scheduler_of(pool())


def pool(**changed: Any) -> KubernetesPool:
    return KubernetesPool.model_validate({**POOL, **changed})


def order() -> NodeOrder:
    return NodeOrder(node_name(new_id()), {"KNOCKEM_URL": "http://host:3001", "KNOCKEM_TOKEN": TOKEN})


def look_at(scheduler: Scheduler, name: str) -> NodeSight:
    return scheduler.look({name: name})[name]


def asked_for(api: KubernetesApi, scheduler: Scheduler) -> tuple[str, dict[str, Any]]:
    """Ask for a node; return its name and its pod's status, which the cluster fills in."""
    name = scheduler.ask(order())
    return name, api.pod_of(name)["status"]


def container(**state: Any) -> list[dict[str, Any]]:
    """What a pod's status says of its only container."""
    common = {"name": "worker", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return [{**common, "state": state}]


@pytest.mark.parametrize("made", [pool(), pool(gpus=0, tolerations=[], image_pull_secrets=[], node_selector=None)])
def test_the_objects_are_what_the_client_knows(made: KubernetesPool):
    asked = order()
    with ApiClient() as client:
        for model, thing in (("V1Job", job_of(made, asked)), ("V1Secret", secret_of(asked, job_uid="a-uid"))):
            read = client.deserialize(json.dumps(thing), model, "application/json")
            assert client.sanitize_for_serialization(read) == thing


def test_a_pod_may_nothing_but_work(api: KubernetesApi, scheduler: Scheduler):
    asked = order()
    assert scheduler.ask(asked) == asked.name
    spec = api.pod_of(asked.name)["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert spec["activeDeadlineSeconds"] == 7200
    assert spec["terminationGracePeriodSeconds"] > 20
    [worker] = spec["containers"]
    assert worker["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    amounts = {"cpu": "1500m", "memory": "2048Mi", "nvidia.com/gpu": "1"}
    assert worker["resources"] == {"requests": amounts, "limits": amounts}
    assert worker["args"][:2] == ["knockem_dagster", "worker"]
    assert worker["args"][-2:] == ["--time-left", "7140"]
    job = api.objects["jobs"][asked.name]["spec"]
    assert job["backoffLimit"] == 0
    assert job["ttlSecondsAfterFinished"] > 0


def test_the_token_is_in_a_secret_that_goes_with_the_job_and_nowhere_else(api: KubernetesApi, scheduler: Scheduler):
    asked = order()
    scheduler.ask(asked)
    job, secret = api.objects["jobs"][asked.name], api.objects["secrets"][asked.name]
    assert secret["stringData"] == dict(asked.environment)
    assert [owner["uid"] for owner in secret["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]
    [worker] = api.pod_of(asked.name)["spec"]["containers"]
    assert worker["envFrom"] == [{"secretRef": {"name": asked.name}}]
    assert TOKEN not in json.dumps([job, api.pod_of(asked.name)])


def test_a_pod_is_made_only_when_its_secret_is_there(api: KubernetesApi, scheduler: Scheduler):
    scheduler.ask(order())
    assert api.done == [("create", "jobs"), ("create", "secrets"), ("patch", "jobs")]
    api.forbidden = {("create", "secrets")}
    with pytest.raises(
        NodeRefused, match='secrets is forbidden: User "system:serviceaccount:studies:me" cannot create'
    ):
        scheduler.ask(order())
    assert {kind: len(found) for kind, found in api.objects.items()} == {"jobs": 1, "secrets": 1, "pods": 1}


def test_what_the_cluster_refuses_is_told_in_its_words(api: KubernetesApi, scheduler: Scheduler):
    api.most_jobs = 0
    with pytest.raises(NodeRefused, match=r"403 Forbidden: .* exceeded quota: count, requested: count/jobs.batch=1"):
        scheduler.ask(order())


def test_who_dies_while_asking_leaves_a_job_that_runs_nothing_and_is_removed(api: KubernetesApi, scheduler: Scheduler):
    # An answer that is lost, and then nothing more that can be done: as if the process were gone.
    api.broken, api.forbidden = {("create", "jobs")}, {("delete", "jobs")}
    asked = order()
    with pytest.raises(SchedulerAway, match="etcdserver: request timed out"):
        scheduler.ask(asked)
    assert asked.name in api.objects["jobs"]
    assert not api.objects["pods"]
    api.broken, api.forbidden = set(), set()
    assert scheduler.look({asked.name: None})[asked.name].state is NodeState.ENDED
    assert not api.objects["jobs"]
    assert not scheduler.look({asked.name: None})


def test_a_pod_that_waits_tells_why(api: KubernetesApi, scheduler: Scheduler):
    name, status = asked_for(api, scheduler)
    assert look_at(scheduler, name) == NodeSight(name, NodeState.PENDING)
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    status["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
    ]
    assert look_at(scheduler, name) == NodeSight(name, NodeState.PENDING, f"Unschedulable: {message}")
    status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "example.org/knockem:1"'}
    status["containerStatuses"] = container(waiting=waiting)
    expected = 'ImagePullBackOff: Back-off pulling image "example.org/knockem:1"'
    assert look_at(scheduler, name) == NodeSight(name, NodeState.PENDING, expected)


def test_a_pod_that_runs_tells_since_when(api: KubernetesApi, scheduler: Scheduler):
    name, status = asked_for(api, scheduler)
    status |= {"phase": "Running", "containerStatuses": container(running={"startedAt": STARTED})}
    started = datetime(2026, 1, 2, 3, 10, tzinfo=UTC)
    assert look_at(scheduler, name) == NodeSight(name, NodeState.RUNNING, started=started)


@pytest.mark.parametrize(
    ("phase", "terminated", "reason"),
    [
        ("Succeeded", {"exitCode": 0, "reason": "Completed"}, "Completed"),
        ("Failed", {"exitCode": 137, "reason": "OOMKilled"}, "OOMKilled: exit code 137"),
        (
            "Failed",
            {"exitCode": 1, "reason": "Error", "message": "KnockemError: the token\nis not known\n"},
            "Error: exit code 1: KnockemError: the token is not known",
        ),
    ],
)
def test_a_pod_that_is_over_tells_how_and_when(
    api: KubernetesApi, scheduler: Scheduler, phase: str, terminated: dict[str, Any], reason: str
):
    name, status = asked_for(api, scheduler)
    times = {"startedAt": STARTED, "finishedAt": ENDED}
    status |= {"phase": phase, "containerStatuses": container(terminated={**terminated, **times})}
    started, ended = datetime(2026, 1, 2, 3, 10, tzinfo=UTC), datetime(2026, 1, 2, 4, tzinfo=UTC)
    assert look_at(scheduler, name) == NodeSight(name, NodeState.ENDED, reason, started, ended)


def test_a_pod_that_never_came_to_run_tells_why(api: KubernetesApi, scheduler: Scheduler):
    name, status = asked_for(api, scheduler)
    message = "Pod was active on the node longer than the specified deadline"
    status |= {"phase": "Failed", "reason": "DeadlineExceeded", "message": message}
    status["containerStatuses"] = container(waiting={"reason": "ErrImagePull"})
    sight = look_at(scheduler, name)
    assert sight == NodeSight(name, NodeState.ENDED, f"DeadlineExceeded: {message}: ErrImagePull")


def test_a_job_without_a_pod_waits_for_one_or_has_lost_it(api: KubernetesApi, scheduler: Scheduler):
    name, _ = asked_for(api, scheduler)
    api.objects["pods"].clear()
    waits = look_at(scheduler, name)
    assert waits.state is NodeState.PENDING
    assert f"kubectl describe job {name}" in waits.reason
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": ENDED}
    api.objects["jobs"][name]["status"] = {"conditions": [failed]}
    ended = datetime(2026, 1, 2, 4, tzinfo=UTC)
    assert look_at(scheduler, name) == NodeSight(name, NodeState.ENDED, "BackoffLimitExceeded", ended=ended)


def test_only_nodes_that_are_asked_about_are_told_of(api: KubernetesApi, scheduler: Scheduler):
    ours, other = scheduler.ask(order()), scheduler.ask(order())
    unknown = order().name
    assert set(scheduler.look({ours: ours, unknown: None})) == {ours}
    api.objects["jobs"][other]["metadata"]["labels"].pop(LABEL)
    assert set(scheduler.look({ours: ours, other: other})) == {ours}


def test_what_is_released_goes_with_all_that_it_has(api: KubernetesApi, scheduler: Scheduler):
    released, kept = scheduler.ask(order()), scheduler.ask(order())
    scheduler.release([released, "knockem-which-never-was"])
    assert {kind: len(found) for kind, found in api.objects.items()} == {"jobs": 1, "secrets": 1, "pods": 1}
    assert set(api.objects["jobs"]) == {kept}
    assert {option["propagationPolicy"] for option in api.options} == {"Background"}


def test_a_cluster_that_does_not_answer_is_away(api: KubernetesApi, scheduler: Scheduler, tmp_path: Path):
    nowhere = scheduler_of(pool(context="nowhere"))
    for ask in (lambda: nowhere.ask(order()), lambda: nowhere.look({"a": "a"}), lambda: nowhere.release(["a"])):
        with pytest.raises(SchedulerAway, match="cannot be reached"):
            ask()
    with pytest.raises(SchedulerAway, match="no-such-context"):
        scheduler_of(pool(context="no-such-context")).look({})
    api.broken = {("list", "jobs")}
    with pytest.raises(SchedulerAway, match=r"500 .*: etcdserver: request timed out"):
        scheduler.look({"a": "a"})


def test_credentials_that_are_over_are_no_fault_of_the_node(
    api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "another"
    path.write_text(api.write_kubeconfig(path).read_text().replace(API_TOKEN, "an-old-token"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(SchedulerAway, match="401 Unauthorized"):
        scheduler_of(pool()).ask(order())


@pytest.mark.parametrize("content", [None, "", "clusters: [", "clusters: {}\n"])
def test_a_kubeconfig_that_is_none_is_told(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(SchedulerAway, match="Kubernetes cannot be reached: "):
        scheduler_of(pool()).look({})


def test_a_preview_is_what_would_be_made(api: KubernetesApi, scheduler: Scheduler):
    asked = order()
    job, secret = yaml.safe_load_all(scheduler.preview(asked))
    assert not api.done
    scheduler.ask(asked)
    assert (job["kind"], secret["kind"]) == ("Job", "Secret")
    assert job["spec"]["template"] == api.objects["jobs"][asked.name]["spec"]["template"]
    assert secret["stringData"] == api.objects["secrets"][asked.name]["stringData"]


def test_without_the_client_it_is_said_what_to_install():
    script = "import sys; sys.modules['kubernetes'] = None; import knockem_dagster.nodes.kubernetes"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "KnockemError" in ended.stderr.splitlines()[-1]
    assert "knockem_dagster[kubernetes]" in ended.stderr.splitlines()[-1]
