"""Genomes measured side by side on all cores, each with random numbers of its own: the same results on any machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from numpy.random import Generator

Outcome = TypeVar("Outcome")

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def for_each(rng: Generator, count: int, measure: Callable[[Generator], Outcome]) -> list[Outcome]:
    """Return what `measure`, a function of a module, makes of `count` generators spawned from this one, in order."""
    children: Sequence[Generator] = rng.spawn(count)
    if count < 2:
        return [measure(child) for child in children]
    with _single_threaded(), ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as processes:
        return list(processes.map(measure, children))


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Let new processes calculate with one thread each: there are as many as cores."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
