"""Many cases in many processes, each told of as soon as it is there.

Comes in: a function of one order, orders, a number of processes. Goes out: calls of ``finish``. It knows no cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from typing import TypeVar

from hilum.cores import process_pool

T = TypeVar("T")
R = TypeVar("R")


def each(work: Callable[[T], R], orders: Sequence[T], processes: int, finish: Callable[[T, R], None]) -> None:
    """``finish(order, work(order))`` for each order, in the order in which they are done.

    Args:
        work: a function at the top of a module, so that other processes find it.
        orders: what to do.
        processes: how many at once; with 1 everything happens here.
        finish: called here, never at once.
    """
    if processes <= 1:
        for order in orders:
            finish(order, work(order))
        return
    with process_pool(processes) as pool:
        running = {pool.submit(work, order): order for order in orders}
        try:
            for future in as_completed(running):
                finish(running[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
