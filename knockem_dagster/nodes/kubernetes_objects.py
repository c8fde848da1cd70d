"""What a node is in Kubernetes: a Job with one pod, and the Secret that its worker's environment is read from.

What does not belong here: talking to a cluster.
"""

from __future__ import annotations

from typing import Any

from knockem_dagster.nodes.node_pools import KubernetesPool
from knockem_dagster.nodes.schedulers import NodeOrder
from knockem_dagster.nodes.worker_image import DRAIN_SECONDS, image_arguments

LABEL = "knockem/node"
"""The label that our Jobs, pods and Secrets have: the node's name."""
KEPT_SECONDS = 3600
"""How long a Job that is over can be looked at."""


def job_of(pool: KubernetesPool, order: NodeOrder) -> dict[str, Any]:
    """Return the Job, which waits to be resumed.

    The time limit is the pod's: a Job's would run while the pod waits for a machine.
    """
    pod = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": pool.walltime,
        "terminationGracePeriodSeconds": DRAIN_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service named knockem would become variables named as our settings
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_worker(pool, order)],
        "serviceAccountName": pool.service_account,
        "imagePullSecrets": [{"name": name} for name in pool.image_pull_secrets],
        "nodeSelector": pool.node_selector,
        "tolerations": list(pool.tolerations),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(order),
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {
                "metadata": {"labels": {LABEL: order.name}},
                "spec": {name: value for name, value in pod.items() if value not in (None, [])},
            },
        },
    }


def secret_of(order: NodeOrder, *, job_uid: str) -> dict[str, Any]:
    """Return the Secret, which goes when its Job goes."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": order.name, "uid": job_uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**_metadata(order), "ownerReferences": [owner]},
        "immutable": True,
        "stringData": dict(order.environment),
    }


def _metadata(order: NodeOrder) -> dict[str, Any]:
    return {"name": order.name, "labels": {LABEL: order.name}}


def _worker(pool: KubernetesPool, order: NodeOrder) -> dict[str, Any]:
    amounts = {"cpu": f"{max(1, round(pool.cpus * 1000))}m", "memory": f"{pool.memory}Mi"}
    if pool.gpus:
        amounts[pool.gpu_resource] = f"{pool.gpus}"
    return {
        "name": "worker",
        "image": pool.image,
        "args": image_arguments(pool),
        "envFrom": [{"secretRef": {"name": order.name}}],
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",  # its last lines tell why it failed
    }
