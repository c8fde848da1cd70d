"""Nodes of a Kubernetes cluster, by the official client, which is an extra.

A node's Job is made suspended, then the Secret that it owns, and then it is resumed: wherever we are killed, no pod
waits for a Secret that never comes, and no Secret outlives its Job.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import yaml

from knockem_dagster.errors import KnockemError
from knockem_dagster.nodes.kubernetes_objects import LABEL, job_of, secret_of
from knockem_dagster.nodes.node_pools import KubernetesPool
from knockem_dagster.nodes.schedulers import (
    ANSWER_SECONDS,
    BROKEN_OFF,
    NodeOrder,
    NodeRefused,
    NodeSight,
    SchedulerAway,
    reason_of,
)
from knockem_dagster.records.nodes import NodeState

try:
    from kubernetes.client import ApiClient, ApiException, BatchV1Api, Configuration, CoreV1Api
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
    from urllib3.exceptions import HTTPError
except ImportError as error:
    raise KnockemError(
        "Node pools of Kubernetes need its client: install the extra, `pip install 'knockem_dagster[kubernetes]'`."
    ) from error

_NOT_NOW = (HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_WITHIN: Mapping[str, Any] = {"_request_timeout": ANSWER_SECONDS}


class Kubernetes:
    """A namespace of a cluster that the kubeconfig names, or that this process runs in: a Scheduler."""

    def __init__(self, pool: KubernetesPool) -> None:
        self._pool = pool

    def ask(self, order: NodeOrder) -> str:
        """Make a Job and its Secret; what the cluster does not take leaves nothing behind."""
        with self._connection() as connection:
            jobs, namespace = BatchV1Api(connection), self._pool.namespace
            body: Any = job_of(self._pool, order)
            try:
                job: Any = jobs.create_namespaced_job(namespace, body, **_WITHIN)
                secret: Any = secret_of(order, job_uid=job.metadata.uid)
                CoreV1Api(connection).create_namespaced_secret(namespace, secret, **_WITHIN)
                jobs.patch_namespaced_job(order.name, namespace, {"spec": {"suspend": False}}, **_WITHIN)
            except ApiException as error:
                with suppress(ApiException):
                    self._delete(connection, order.name)
                if _is_refusal(error):
                    raise NodeRefused(_message(error)) from error
                raise
        return order.name

    def look(self, nodes: Mapping[str, str | None]) -> Mapping[str, NodeSight]:
        """List our Jobs and their pods."""
        with self._connection() as connection:
            options: Any = {"label_selector": LABEL, **_WITHIN}
            jobs: Any = BatchV1Api(connection).list_namespaced_job(self._pool.namespace, **options)
            pods: Any = CoreV1Api(connection).list_namespaced_pod(self._pool.namespace, **options)
            pod_of = {pod.metadata.labels[LABEL]: pod for pod in pods.items}
            ours = {job.metadata.name: job for job in jobs.items if job.metadata.name in nodes}
            for name, job in ours.items():
                if job.spec.suspend:
                    self._delete(connection, name)
        return {name: _sight(job, pod_of.get(name)) for name, job in ours.items()}

    def release(self, external_ids: Collection[str]) -> None:
        """Delete Jobs: pods that are there are told to end, and have time for it."""
        if not external_ids:
            return
        with self._connection() as connection:
            for name in sorted(external_ids):
                self._delete(connection, name)

    def preview(self, order: NodeOrder) -> str:
        """Return the Job and the Secret in YAML."""
        objects = [job_of(self._pool, order), secret_of(order, job_uid="(the Job's)")]
        return yaml.safe_dump_all(objects, sort_keys=False)

    def _delete(self, connection: ApiClient, name: str) -> None:
        """Delete what there is of a node."""
        options: Any = {"propagation_policy": "Background", **_WITHIN}
        for delete in (
            BatchV1Api(connection).delete_namespaced_job,
            CoreV1Api(connection).delete_namespaced_secret,
        ):
            try:
                delete(name, self._pool.namespace, **options)
            except ApiException as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise

    @contextmanager
    def _connection(self) -> Generator[ApiClient]:
        """Give a client of the cluster. Raises SchedulerAway for whatever it says that nobody has caught."""
        try:
            with ApiClient(_configuration(self._pool.context)) as connection:
                yield connection
        except ApiException as error:
            raise SchedulerAway(f"Kubernetes does not answer as it should: {_message(error)}") from error
        except (HTTPError, ConfigException, yaml.YAMLError, OSError) as error:  # the last two: of the kubeconfig
            raise SchedulerAway(reason_of("Kubernetes cannot be reached", str(error))) from error


def _configuration(context: str | None) -> Configuration:
    """Read the kubeconfig as kubectl does; without one, a pod's own cluster is meant."""
    configuration = Configuration()
    try:
        load_kube_config(config_file=os.environ.get("KUBECONFIG"), context=context, client_configuration=configuration)
    except ConfigException:
        if context is not None or "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise
        load_incluster_config(client_configuration=configuration)
    return configuration


def _is_refusal(error: ApiException) -> bool:
    """Tell whether the cluster does not want this node, rather than not us, or not now."""
    status = error.status or 0
    return 400 <= status < 500 and status not in _NOT_NOW


def _message(error: ApiException) -> str:
    """Return what the server says, which is a Status with a message unless a proxy answers."""
    try:
        said = json.loads(error.body or "")["message"]
    except (ValueError, TypeError, KeyError):
        said = error.body
    return reason_of(f"{error.status} {error.reason}", said)


def _sight(job: Any, pod: Any) -> NodeSight:
    name = job.metadata.name
    if job.spec.suspend:
        return NodeSight(name, NodeState.ENDED, BROKEN_OFF)
    if pod is None:
        return _sight_without_pod(job)
    state = next((each.state for each in pod.status.container_statuses or ()), None)
    if state is not None and state.terminated is not None:
        over = state.terminated
        code = f"exit code {over.exit_code}" if over.exit_code else None
        reason = reason_of(pod.status.reason, pod.status.message, over.reason, code, over.message)
        return NodeSight(name, NodeState.ENDED, reason, over.started_at, over.finished_at)
    waits = _waits_for(pod, state)
    if pod.status.phase in ("Succeeded", "Failed"):
        return NodeSight(name, NodeState.ENDED, reason_of(pod.status.reason, pod.status.message, waits))
    if state is not None and state.running is not None:
        return NodeSight(name, NodeState.RUNNING, started=state.running.started_at)
    return NodeSight(name, NodeState.PENDING, waits)


def _sight_without_pod(job: Any) -> NodeSight:
    name = job.metadata.name
    for each in job.status.conditions or ():
        if each.type in ("Complete", "Failed") and each.status == "True":
            reason = reason_of(each.reason, each.message)
            return NodeSight(name, NodeState.ENDED, reason, ended=each.last_transition_time)
    return NodeSight(name, NodeState.PENDING, f"it has no pod; `kubectl describe job {name}` tells why")


def _waits_for(pod: Any, state: Any) -> str:
    """Return what keeps a pod's container from starting."""
    if state is not None and state.waiting is not None:
        return reason_of(state.waiting.reason, state.waiting.message)
    for each in pod.status.conditions or ():
        if each.type == "PodScheduled" and each.status == "False":
            return reason_of(each.reason, each.message)
    return ""
