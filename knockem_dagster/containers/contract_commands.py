"""The names of the container contract's commands."""

from __future__ import annotations

COUNT_SITES = "knockem_count_sites"
APPLY_KNOCKOUT = "knockem_apply_knockout"
COMPETE_TWO = "knockem_compete_two"
SERVE = "knockem_serve"
DESCRIBE_TRUTH = "knockem_describe_truth"
