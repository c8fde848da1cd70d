"""The Python front door: a submission's results as DataFrames, and those of several side by side."""

from knockem_dagster.api.submission import Submission, compare

__all__ = ["Submission", "compare"]
