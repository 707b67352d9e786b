"""Progress with time left, for people; nothing for programs.

Stages take a ``Progress`` and call ``step``; they never print. On a terminal one line is redrawn; elsewhere (a log
file, a job queue) a plain line appears at most every ten seconds and at the end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")


class Progress:
    """Counts steps towards a total and writes how long is left.

    Args:
        title: what is being done ("Training").
        total: number of steps, or 0 if unknown.
        stream: where to write; None is silent.
    """

    def __init__(self, title: str = "", total: int = 0, stream: TextIO | None = None):
        self.title, self.total, self.stream, self.done = title, total, stream, 0
        self._start = self._shown = time.monotonic()
        self._note = ""

    def stage(self, title: str, total: int = 0) -> Progress:
        """A new count on the same stream."""
        return Progress(title, total, self.stream)

    def step(self, count: int = 1, note: str = "") -> None:
        """``count`` more steps are done; ``note`` is shown behind the bar (a loss, a case name)."""
        self.done += count
        self._note = note or self._note
        now = time.monotonic()
        last = self.done == self.total
        wait = 0.1 if self._terminal else 10.0
        if self.stream is not None and (last or now - self._shown >= wait):
            self._shown = now
            self._write(now, last)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.stream is not None:
            clear = "\r\033[K" if self._terminal else ""
            self.stream.write(f"{clear}{text}\n")
            self.stream.flush()

    def over(self, items: Iterable[T], title: str, total: int) -> Iterator[T]:
        """Iterate with a bar."""
        bar = self.stage(title, total)
        for item in items:
            yield item
            bar.step()

    @property
    def _terminal(self) -> bool:
        return self.stream is not None and self.stream.isatty()

    def _write(self, now: float, last: bool) -> None:
        assert self.stream is not None
        spent = now - self._start
        text = f"{self.title} {self.done}" + (f"/{self.total}" if self.total else "")
        if last:
            text += f", {clock(spent)}"
        elif self.total and self.done:
            text += f", {clock(spent / self.done * (self.total - self.done))} left"
        text += f", {self._note}" if self._note else ""
        if self._terminal:
            filled = round(24 * self.done / self.total) if self.total else 0
            bar = f"[{'=' * filled}{' ' * (24 - filled)}] " if self.total else ""
            self.stream.write(f"\r\033[K{bar}{text}" + ("\n" if last else ""))
        else:
            self.stream.write(text + "\n")
        self.stream.flush()


SILENT = Progress()


def on_stderr() -> Progress:
    """Progress for the command line: standard output stays free for results."""
    return Progress(stream=sys.stderr)


def clock(seconds: float) -> str:
    """``75`` to ``1 min 15 s``."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
