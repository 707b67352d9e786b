"""Processor seconds of processes and their workers, on Linux; needs nothing but Python, for peers' environments too.

Comes in: what tells the processes. Goes out: user and system seconds so far.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_PARENT, _GROUP = 1, 2  # fields of /proc/PID/stat after the name (man 5 proc)


def seconds_of_group(group: int) -> float:
    """Of all processes of a group."""
    return _seconds(_GROUP, group)


def own_seconds() -> float:
    """Of this process and of the workers that it has now."""
    return time.process_time() + _seconds(_PARENT, os.getpid())


def _seconds(field: int, value: int) -> float:
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it ended just now
            continue
        if int(fields[field]) == value:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
