"""The same work on many cases at once, with every fault named.

Comes in: a function of one case and the cases. Goes out: its results in the cases' order, or one error that names each
bad case. Threads, not processes: decompression, NumPy and BLAS release the interpreter's lock, nothing has to be
pickled, and no worker can die alone (six cases took 5.6 s in two threads, 8.3 s in two processes already started, on
two busy cores). Knows nothing of what the work is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from hilum.cores import cpu_count
from hilum.errors import DatasetError, InputError
from hilum.progress import Progress

if TYPE_CHECKING:
    from hilum.datasets import CaseRef

T = TypeVar("T")
_SHOWN = 8


def over_cases(
    work: Callable[[CaseRef], T], cases: Sequence[CaseRef], workers: int, progress: Progress, title: str
) -> list[T]:
    """``work`` on every case.

    Args:
        work: reads and computes; raises InputError if the case is unusable.
        cases: distinct names.
        workers: cases in memory at once; 0 means one for each core, at most 8.
        progress: counts cases.
        title: what is being done.

    Raises:
        DatasetError: after all cases were tried, naming every unusable one with its reason.
        Exception: anything else at once, such as a full disk; cases not yet begun are dropped.
    """
    check_cases(cases)
    bar = progress.stage(title, len(cases))
    faults: dict[str, str] = {}
    broken = threading.Event()

    def tried(case: CaseRef) -> T | None:
        if broken.is_set():
            return None
        try:
            return work(case)
        except InputError as error:
            faults[case.name] = str(error)
            return None
        except BaseException:
            broken.set()
            raise

    def told(future: Future[T | None], case: CaseRef) -> None:
        if not future.cancelled() and future.exception() is None:
            bar.step(note=case.name)

    with ThreadPoolExecutor(worker_count(workers, len(cases))) as pool:
        futures = []
        for case in cases:
            future = pool.submit(tried, case)
            future.add_done_callback(lambda done, case=case: told(done, case))  # type: ignore[misc]
            futures.append(future)
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    for future in futures:
        if not future.cancelled():
            future.result()
    if faults:
        bad = [case.name for case in cases if case.name in faults]
        text = "; ".join(f"[{name}] {faults[name]}" for name in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN} more: {', '.join(bad[_SHOWN:])}" if len(bad) > _SHOWN else ""
        raise DatasetError(
            f"{len(bad)} of {len(cases)} cases cannot be used: {text}{more}", fix="correct them or take them out"
        )
    return [future.result() for future in futures]  # type: ignore[misc]


def check_cases(cases: Sequence[CaseRef]) -> None:
    """Refuse a list of cases that is empty, names one twice or lacks label maps.

    Raises:
        DatasetError: naming the cases.
    """
    if not cases:
        raise DatasetError("no cases", wanted="at least one image with its label map")
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"these cases are named twice: {twice[:_SHOWN]}", fix="give each case its own name")
    unlabelled = [case.name for case in cases if case.labels is None]
    if unlabelled:
        raise DatasetError(
            f"{len(unlabelled)} of {len(cases)} cases have no label map: {', '.join(unlabelled[:_SHOWN])}",
            wanted="a label map for every case to learn from",
            fix="add them or take the cases out",
        )


def worker_count(workers: int, cases: int) -> int:
    """How many cases to work on at once; a case takes up to 1 GB, so that the default stops at 8."""
    assert workers >= 0, workers
    return max(1, min(workers or min(cpu_count(), 8), cases))
