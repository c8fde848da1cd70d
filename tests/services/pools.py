"""A pool for tests of nodes that ask no real scheduler."""

from __future__ import annotations

from typing import Any

from knockem_dagster.nodes.node_pools import SlurmPool


def slurm_pool(**changed: Any) -> SlurmPool:
    """Return a pool of small nodes of SLURM, with other keys as named."""
    limits = {"cpus": 1, "memory": "1g", "walltime": "00:10:00", "max_nodes": 4, "max_node_hours": 100}
    return SlurmPool.model_validate({"name": "p", "scheduler": "slurm", **limits, **changed})
