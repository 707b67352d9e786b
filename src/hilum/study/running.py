"""JOBS -> RESULTS: each in a process of its own, several at a time, none twice, killed and resumed.

Comes in: jobs. Goes out: what each left (``result.json``), or why it failed. What is done already is taken as it is;
what another process is at work on is waited for; a run that fails does not stop the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.config import to_table
from hilum.cores import cpu_count
from hilum.errors import TrainingError
from hilum.files import read_json, write_json
from hilum.progress import SILENT, Progress, clock
from hilum.study.jobs import FORMAT, Job, claim, read_result
from hilum.training.stopping import StopSignals

_LOOK_S, _PATIENCE_S = 0.1, 120.0
_WHOLE = 100  # a run is a hundred steps of the bar


def worker_command(job: Path) -> list[str]:
    """How a job is begun."""
    return [sys.executable, "-m", "hilum.study.worker", str(job)]


@dataclass
class Runner:
    """Runs jobs.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:1".
        processes: how many at a time.
        progress: where to tell.
        command: what to start for a ``job.json``.
        stop: set it, and the jobs at work save and end.
    """

    device: str = "auto"
    processes: int = 1
    progress: Progress = SILENT
    command: Callable[[Path], list[str]] = worker_command
    stop: threading.Event = field(default_factory=threading.Event)

    def over(self, jobs: Sequence[Job], work: Callable[[Job, int], Any] | None = None) -> None:
        """Run all jobs, and return when each is done or failed.

        Raises:
            TrainingError: a signal asked to stop; what runs has saved, and the message says how to go on.
        """
        todo: deque[Job] = deque(job for job in jobs if not job.is_done)
        bar = _Bar(self.progress, len(jobs), len(jobs) - len(todo))
        lock = threading.Lock()

        def keep_busy(slot: int) -> None:
            while not self.stop.is_set():
                with lock:
                    job = todo.popleft() if todo else None
                if job is None:
                    return
                if self.run(job, slot, bar) is None and not self.stop.is_set():
                    with lock:
                        todo.append(job)  # another process has it: come back later
                    bar.tell(f"{job.title}: another process is at work on it; waiting", once=True)
                    self.stop.wait(1.0)

        self.threads(keep_busy)

    def threads(self, work: Callable[[int], None]) -> None:
        """One thread a process; the main one listens to signals.

        Raises:
            TrainingError: a signal asked to stop.
        """
        with StopSignals() as signals, ThreadPoolExecutor(self.processes, "study") as pool:
            futures = [pool.submit(work, slot) for slot in range(self.processes)]
            try:
                while not all(future.done() for future in futures):
                    if signals.asked or any(future.done() and future.exception() for future in futures):
                        self.stop.set()
                    time.sleep(_LOOK_S / 2)
            except BaseException:
                self.stop.set()
                raise
        for future in futures:
            future.result()
        if signals.asked:
            raise TrainingError(
                f"stopped by {signals.asked}; what is done stays, what ran has saved where it was",
                fix="run the same command again to go on",
            )

    def run(self, job: Job, slot: int = 0, bar: _Bar | None = None, kind: str = "run") -> dict[str, Any] | None:
        """One job; its result, or None if another process is at work on it or a stop was asked for."""
        with claim(job.folder) as held:
            if held is None:
                return None
            if job.is_done:
                if bar is not None:
                    bar.done(job)
                return job.result()
            (job.folder / "result.json").unlink(missing_ok=True)
            file = job.folder / "job.json"
            write_json(file, _order(job, kind, self.device, _cores(slot, self.processes)))
            code = self._watch(job, file, held, bar)
            if self.stop.is_set() and code:
                return None
            result = job.result()
            if result is None:
                result = _died(job, code)
                write_json(job.folder / "result.json", result)
            if bar is not None:
                bar.done(job, result)
            return result

    def _watch(self, job: Job, file: Path, held: int, bar: _Bar | None) -> int:
        """Start the process and wait for it; ask it to stop when a stop is asked for."""
        with open(job.folder / "worker.log", "ab") as log:
            process = subprocess.Popen(
                self.command(file),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                pass_fds=(held,) if os.name == "posix" else (),
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
                env={**os.environ, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")},
            )
        asked = 0.0
        while process.poll() is None:
            if self.stop.is_set() and not asked:
                process.terminate()
                asked = time.monotonic()
            elif asked and time.monotonic() - asked > _PATIENCE_S:
                process.kill()
            if bar is not None:
                bar.look(job)
            time.sleep(_LOOK_S)
        return process.returncode


class _Bar:
    """Progress over runs: finished ones count whole, the ones at work by their own logs."""

    def __init__(self, progress: Progress, runs: int, done: int):
        self.progress, self.lock = progress, threading.Lock()
        self.bar = progress.stage("Runs", runs * _WHOLE)
        self.shown, self.looked = 0, 0.0
        self.parts: dict[Path, float] = {}
        self.told: set[str] = set()
        if done:
            progress.say(f"{done} of {runs} runs are done already")
        self.finished: float = done
        self._draw("")

    def look(self, job: Job) -> None:
        """See how far a job is; at most once a second."""
        now = time.monotonic()
        with self.lock:
            if now - self.looked < 1.0:
                return
            self.looked = now
            self.parts[job.folder] = share_done(job)
            self._draw(job.title)

    def done(self, job: Job, result: dict[str, Any] | None = None) -> None:
        """A job has ended."""
        with self.lock:
            self.parts.pop(job.folder, None)
            self.finished += 1
            if result is not None:
                failed = result.get("status") != "done"
                text = f"failed: {result.get('error')}" if failed else f"{clock(result.get('wall_seconds', 0))}"
                self.progress.say(f"{job.title}: {text}")
            self._draw(job.title)

    def tell(self, text: str, once: bool = False) -> None:
        """A line of its own."""
        with self.lock:
            if not (once and text in self.told):
                self.told.add(text)
                self.progress.say(text)

    def _draw(self, note: str) -> None:
        reached = int(_WHOLE * (self.finished + sum(self.parts.values())))
        if reached > self.shown:
            self.bar.step(reached - self.shown, note)
            self.shown = reached


def share_done(job: Job) -> float:
    """How much of a run is over, 0 to below 1, by its log's last line."""
    try:
        last = json.loads((job.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        left, spent = float(last["time_left_s"]), float(last["seconds"])
        return min(0.95, spent / max(1e-9, spent + left))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0.0


def results_of(jobs: Iterable[Job]) -> dict[Job, dict[str, Any]]:
    """What is there of each job, failed ones included."""
    return {job: found for job in jobs if (found := job.result()) is not None}


def _order(job: Job, kind: str, device: str, cores: Sequence[int]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": kind,
        "key": job.key,
        "recipe": to_table(job.recipe),
        "fold": job.fold,
        "device": device,
        "prepared": str(job.prepared.absolute()),
        "cores": list(cores),
    }


def _cores(slot: int, processes: int) -> list[int]:
    """This slot's share of the processors; none if there are not enough to share."""
    if processes < 2 or not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))[: cpu_count()]
    return allowed[slot::processes] if len(allowed) >= processes else []


def _died(job: Job, code: int) -> dict[str, Any]:
    """The result of a process that left none."""
    if code == -9:
        why = "its process was killed (signal 9): most likely the memory did not suffice"
    elif code < 0:
        why = f"its process ended by signal {-code}"
    else:
        why = f"its process ended with code {code}"
    last = read_json(job.folder / "job.json")
    log = job.folder / "worker.log"
    return {
        "format": FORMAT,
        "key": job.key,
        "recipe": last["recipe"],
        "fold": job.fold,
        "status": "failed",
        "error": f"{why}; see {log}",
    }


__all__ = ["Runner", "read_result", "results_of", "share_done", "worker_command"]
