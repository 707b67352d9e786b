"""Reading the next case and writing the last one while this one is computed; a bad case does not stop the others.

Comes in: items and three functions. Goes out: what became of each item, in order: a result, or the sentence that says
what went wrong. It knows nothing of scans and models.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from hilum.errors import HilumError

log = logging.getLogger(__name__)

P = ParamSpec("P")
Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """Why an item has no result, in one sentence."""

    error: str


def in_three_stages(
    items: Sequence[Item],
    load: Callable[[Item], Loaded],
    compute: Callable[[Item, Loaded], Computed],
    finish: Callable[[Item, Computed], Result],
    *,
    together: bool = True,
) -> Iterator[tuple[Item, Result | Failure]]:
    """Run ``load``, ``compute`` and ``finish`` on every item, side by side: ``compute`` in the caller's own thread.

    With ``together`` off one item is done after the other, so that memory holds one case. Otherwise at most one item
    waits loaded and one is being finished while one is computed, so that memory holds three cases. Threads are enough:
    decompression, NumPy and PyTorch let go of Python's lock.
    """

    def end(item: Item, computed: Computed | Failure) -> Result | Failure:
        return computed if isinstance(computed, Failure) else attempt(finish, item, computed)

    if not together:
        for item in items:
            yield item, one_by_one(item, load, compute, finish)
        return
    with ThreadPoolExecutor(1, "hilum-read") as reader, ThreadPoolExecutor(1, "hilum-write") as writer:
        ahead = [reader.submit(attempt, load, item) for item in items[:1]]
        ending: list[tuple[Item, Future[Result | Failure]]] = []
        for place, item in enumerate(items):
            loaded = ahead.pop().result()
            ahead = [reader.submit(attempt, load, following) for following in items[place + 1 : place + 2]]
            computed = loaded if isinstance(loaded, Failure) else attempt(compute, item, loaded)
            del loaded
            for earlier, future in ending:
                yield earlier, future.result()
            ending = [(item, writer.submit(end, item, computed))]
            del computed
        for earlier, future in ending:
            yield earlier, future.result()


def one_by_one(
    item: Item,
    load: Callable[[Item], Loaded],
    compute: Callable[[Item, Loaded], Computed],
    finish: Callable[[Item, Computed], Result],
) -> Result | Failure:
    """The three stages of one item; what a stage was given is let go before the next begins."""
    loaded = attempt(load, item)
    if isinstance(loaded, Failure):
        return loaded
    computed = attempt(compute, item, loaded)
    del loaded
    return computed if isinstance(computed, Failure) else attempt(finish, item, computed)


def attempt(function: Callable[P, Result], *args: P.args, **options: P.kwargs) -> Result | Failure:
    """The function's result, or its failure; the traceback goes to the log at debug level."""
    try:
        return function(*args, **options)
    except Exception as error:
        log.debug("a case failed", exc_info=error)
        return Failure(sentence(error))


def sentence(error: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(error, HilumError):
        return str(error)
    text = " ".join(str(error).split())
    # torch has no class of its own for running out of main memory
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in text:
        where = "GPU" if "CUDA" in text else "main"
        return f"not enough {where} memory for this scan; close other programs, or take --device cpu for a full GPU"
    return f"a fault in hilum itself ({type(error).__name__}: {text[:300]}); please report it"
