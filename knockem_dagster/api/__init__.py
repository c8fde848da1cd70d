"""The Python front door: a submission's results as DataFrames."""

from knockem_dagster.api.submission import Submission

__all__ = ["Submission"]
