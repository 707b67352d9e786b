"""ENOUGH FOR NOW: signals that ask a run to stop, so that it can finish its step and save.

Comes in: SIGINT (Ctrl-C) or SIGTERM (a job queue, a shutdown). Goes out: a name to ask for between steps. A second
signal acts as it always does: the process ends at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While the block runs, the first SIGINT or SIGTERM is noted instead of acted on.

    Attributes:
        asked: the signal's name once one came, else "".
    """

    def __init__(self) -> None:
        self.asked = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
