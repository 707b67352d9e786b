"""Work that is handed to threads piece by piece, each piece on one core from its start to its end.

Comes in: a function and the pieces. Goes out: its answers, in order. PyTorch's own threads wait for each other after
each operation; here they do so once a layer.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

from hilum.cores import cpu_count

Piece = TypeVar("Piece")
Answer = TypeVar("Answer")
_own = threading.local()


@cache
def _threads() -> ThreadPoolExecutor:
    others = max(1, cpu_count() - 1)
    return ThreadPoolExecutor(others, "hilum-network", initializer=torch.set_num_threads, initargs=(1,))


def scratch(name: str, *shape: int) -> torch.Tensor:
    """Memory of this thread's own for numbers that a piece needs while it is worked on: what was there is anything.

    Asked for anew each time, the system's allocators would keep several times as much.
    """
    kept: dict[str, torch.Tensor] = _own.__dict__
    size = math.prod(shape)
    if name not in kept or kept[name].numel() < size:
        with torch.inference_mode(False):  # of use within inference mode and without
            kept[name] = torch.empty(size)
    return kept[name][:size].view(shape)


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_threads.cache_clear)


@contextmanager
def one_core_each() -> Iterator[None]:
    """Within it PyTorch's operations take one core, as ``each`` needs it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def each(work: Callable[[Piece], Answer], pieces: Iterable[Piece]) -> list[Answer]:
    """``work`` on every piece; answers in the pieces' order, however many threads there are.

    The caller's thread works too, and waits once, at the end.
    """
    left = deque(enumerate(pieces))
    answers: dict[int, Answer] = {}
    helpers = min(cpu_count(), len(left)) - 1

    def some() -> None:
        with torch.inference_mode():
            while left:
                try:
                    place, piece = left.popleft()
                except IndexError:  # another thread took the last one
                    return
                answers[place] = work(piece)

    waited = [_threads().submit(some) for _ in range(helpers)]
    try:
        some()
    finally:
        left.clear()
        for helper in waited:
            helper.result()
    return [answers[place] for place in sorted(answers)]
