"""How many processors this process may use, and workers that end with who started them.

Comes in: what the system tells (the affinity mask, a container's quota). Goes out: a number of at least 1. It imports
nothing of hilum, so that every stage can ask.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path

_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),  # cgroup 2: "share period" or "max period"
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),  # cgroup 1; -1: none
)


def cpu_count(*quota: Path) -> int:
    """How many processors may be used: the affinity mask's, or fewer where a container's quota says so.

    Args:
        quota: the file, or two files, that hold share and period in microseconds; none looks in the system's places.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (quota,) if quota else _QUOTAS:
        try:
            share, period = (int(word) for file in files for word in file.read_text(encoding="ascii").split())
        except (OSError, ValueError):  # no container, or "max": no limit
            continue
        if share > 0 and period > 0:
            allowed = min(allowed, math.ceil(share / period))
    return max(1, allowed)


def process_pool(count: int) -> ProcessPoolExecutor:
    """A pool of fresh processes ("spawn": forking one that has threads can hang) that end when this one does."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), end_with_parent)


def end_with_parent() -> None:
    """For worker processes, when they start: end as soon as the process that started them is gone, however it ended.

    A pool's workers would otherwise wait for ever for work that never comes, and hold their memory.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
