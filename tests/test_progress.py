from __future__ import annotations

import io

from hilum.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_ends_its_line() -> None:
    stream = Terminal()
    for _ in Progress(stream=stream).over(range(3), "Reading", 3):
        pass
    last = stream.getvalue().split("\r\033[K")[-1]
    assert last.startswith("[========================] Reading 3/3") and last.endswith("\n")


def test_a_log_gets_plain_lines_and_few() -> None:
    stream = io.StringIO()
    bar = Progress("Reading", 500, stream)
    for _ in range(500):
        bar.step(note="case_1")
    assert stream.getvalue() == "Reading 500/500, 0 s, case_1\n"


def test_silence_is_the_default() -> None:
    bar = Progress("x", 1)
    bar.step()
    bar.say("nothing")
    assert bar.done == 1


def test_clock() -> None:
    assert [clock(s) for s in (5.4, 75, 3700)] == ["5 s", "1 min 15 s", "1 h 01 min"]
