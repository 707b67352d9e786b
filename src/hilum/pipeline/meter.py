"""Seconds and peak memory by stage.

Comes in: names of cases and stages, as they run in whatever thread. Goes out: tables of seconds and of the largest
resident memory of the whole process while that stage ran (stages overlap, so that what they share counts for both).
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hilum import device as devices

_EVERY_SECONDS = 0.05
_STATM = Path("/proc/self/statm")


class Meter:
    """Measures while it is open (``with Meter() as meter``): a thread looks at the memory 20 times a second.

    Attributes:
        seconds: case -> stage -> seconds.
        memory_gb: case -> stage -> GiB; stages are absent where the system does not tell.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = defaultdict(dict)
        self.memory_gb: dict[str, dict[str, float]] = defaultdict(dict)
        self._running: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hilum-meter", daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def stage(self, case: str, stage: str) -> Iterator[None]:
        """Everything inside belongs to this stage of this case."""
        with self._lock:
            self._running.append((case, stage))
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(case, stage, time.perf_counter() - begin)
            self._look()
            with self._lock:
                self._running.remove((case, stage))

    def add(self, case: str, stage: str, seconds: float) -> None:
        """Seconds that were measured elsewhere."""
        with self._lock:
            self.seconds[case][stage] = round(self.seconds[case].get(stage, 0.0) + seconds, 3)

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        now_gb = resident_gb()
        if now_gb is None:
            return
        with self._lock:
            for case, stage in self._running:
                self.memory_gb[case][stage] = round(max(now_gb, self.memory_gb[case].get(stage, 0.0)), 3)


def resident_gb() -> float | None:
    """GiB of main memory that the process holds now (on Linux), its peak so far (elsewhere), or None."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    except OSError:
        return devices.peak_memory_gb(devices.choose("cpu"))
