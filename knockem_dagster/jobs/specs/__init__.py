"""Workflow files: what may stand in them, what they stand for, and every fault of one at once. Pure: no I/O."""
