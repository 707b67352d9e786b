"""MANY CASES, LOOKED AT ONCE EACH: processes, progress, and a memory of what was looked at before.

Comes in: orders and a file that remembers. Goes out: one record a case, in order. A case is looked at again only when
the size or the time of one of its files changed; each record is written as soon as it is there, so that a run that was
killed goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from hilum.cores import process_pool
from hilum.errors import InputError
from hilum.files import cannot_write, plain, write_text
from hilum.progress import Progress
from hilum.survey.inspecting import Order, inspect_case

FORMAT = 1
T = TypeVar("T")
R = TypeVar("R")


def look_at(
    orders: Sequence[Order],
    memory: Path,
    workers: int | None,
    progress: Progress,
    title: str,
    look: Callable[[Any], dict[str, Any]] | None = None,
    asked: Sequence[Any] = (),
) -> list[dict[str, Any]]:
    """Records of all cases.

    Args:
        orders: distinct case names.
        memory: JSON lines; made if absent, damaged lines are passed over.
        workers: processes; None means one for each core, at most 8 (a case takes up to 3 GB).
        progress: counts cases.
        title: what is being done.
        look: what is done with each order, a function of a module; its answer is the record. None: ``inspect_case``.
        asked: what else must be equal for a record to hold.

    Raises:
        InputError: a process died.
        OutputError: the memory cannot be written.
    """
    known = _remembered(memory)
    keys = {order.case.name: [*state_of(order), *asked] for order in orders}
    found = {name: known[name]["record"] for name, key in keys.items() if known.get(name, {}).get("key") == key}
    todo = [order for order in orders if order.case.name not in found]
    bar = progress.stage(title, len(orders))
    bar.step(len(found))
    with _appending(memory) as file:

        def keep(order: Order, record: dict[str, Any]) -> None:
            found[order.case.name] = json.loads(json.dumps(plain(record)))
            line = {"case": order.case.name, "key": keys[order.case.name], "record": found[order.case.name]}
            try:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
            except OSError as error:
                raise cannot_write(memory, error) from error
            bar.step(note=order.case.name)

        for order, record in in_processes(todo, processes(len(todo), workers), look or inspect_case):
            keep(order, record)
    return [found[order.case.name] for order in orders]


def processes(jobs: int, workers: int | None) -> int:
    """How many processes for so many jobs: as asked, or one for each core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return min(jobs, workers or min(8, cores))


def forget(memory: Path, holds: Callable[[dict[str, Any]], bool]) -> None:
    """Drop what a memory says of cases whose record does not hold any more (its results were removed)."""
    known = _remembered(memory)
    kept = [row for row in known.values() if holds(row["record"])]
    if len(kept) < len(known):
        write_text(memory, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def in_processes(todo: Sequence[T], count: int, look: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each order with its answer, as they are done; in this process where one is enough.

    Raises:
        InputError: a process died.
    """
    if count <= 1:
        yield from ((order, look(order)) for order in todo)
        return
    # "spawn": forking a process that already has threads can hang
    with process_pool(count) as pool:
        running = {pool.submit(look, order): order for order in todo}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool:
            raise InputError(
                "a process that read a case was killed, probably for want of memory",
                fix="run the same command again with --workers 1: what was read is remembered",
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def state_of(order: Order) -> list[Any]:
    """What must be equal for a record to hold: the files' sizes and times, and what was asked."""
    scheme = [list(label) for label in ((x.value, x.name) for x in order.scheme.labels)] if order.scheme else None
    traps = [trap.code for trap in order.traps]
    facts = {key: value for key, value in order.case.facts.items() if key.startswith("captured_")}
    files = [_state(path) for path in (None if order.labels_only else order.case.image, order.case.labels)]
    return json.loads(json.dumps([FORMAT, files, scheme, traps, plain(facts)]))  # type: ignore[no-any-return]


def _state(path: Path | None) -> list[Any] | None:
    if path is None:
        return None
    if path.is_dir():
        files = sorted(item for item in path.rglob("*") if item.is_file())
        states = [item.stat() for item in files]
        return [str(path), len(files), sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)]
    if not path.exists():
        beside = sorted(item.name for item in path.parent.glob(f"*{path.name}*")) if path.parent.is_dir() else []
        return [str(path), *beside]
    state = path.stat()
    return [str(path), state.st_size, state.st_mtime_ns]


def _remembered(memory: Path) -> dict[str, dict[str, Any]]:
    """The last line about each case; a line that was cut off by a kill is passed over."""
    known: dict[str, dict[str, Any]] = {}
    if memory.is_file():
        for line in memory.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                known[row["case"]] = row
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
    return known


@contextmanager
def _appending(memory: Path) -> Iterator[TextIO]:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with open(memory, "a", encoding="utf-8") as file:
            file.write("\n")  # a line that was cut off ends here
            yield file
    except OSError as error:
        raise cannot_write(memory, error) from error
