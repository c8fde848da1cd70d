"""Doing several things at a time, in order: the steps of reading are the work of libraries that leave Python free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def mapped(do: Callable[[T], R], items: Iterable[T], *, threads: int) -> Iterator[R]:
    """Yield what `do` makes of each item, in their order, while so many threads are at those that follow."""
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[R]] = deque()
        for item in items:
            coming.append(pool.submit(do, item))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


@contextmanager
def behind(do: Callable[[T], None]) -> Generator[Callable[[T], None]]:
    """Give a function that lets another thread do this to an item, one at a time, while its caller goes on.

    What a call raises is raised by the next one, or at the end.
    """
    in_work: Future[None] | None = None

    def begin(item: T) -> None:
        nonlocal in_work
        if in_work is not None:
            in_work.result()
        in_work = thread.submit(do, item)

    with ThreadPoolExecutor(1) as thread:
        yield begin
        if in_work is not None:
            in_work.result()
