"""The command line: one function a verb, each a lazy import and one call; a file for each group of verbs.

Comes in: words. Goes out: an exit code (0 done, 1 some cases failed and are listed, 2 wrong use). This is the only
room that prints; nothing heavy is imported before a verb asks for it, so that ``hilum --help`` is instant.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hilum import __version__
from hilum.cli import data, judge, measure, model, segment, study, train
from hilum.errors import HilumError

NOTICE = "Research software, not a medical device: results are not for diagnosis or treatment."


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and say how it went."""
    parser = _parser()
    options = parser.parse_args(words)
    if not hasattr(options, "verb"):
        parser.print_help()
        return 0
    # Threads that wait must sleep: on a busy machine PyTorch's would spin, which was seen to cost a factor of six. This
    # is read when PyTorch is loaded, so it is said here, before any verb loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _warnings_shown():
            return int(options.verb(options))
    except HilumError as error:
        print(f"hilum: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("hilum: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `hilum ... | head` is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        fault = f"{type(error).__name__}: {error}"
        print(f"hilum: a fault in hilum itself ({fault}); --debug shows where, please report it", file=sys.stderr)
        return 1


class _Warnings(logging.Handler):
    """hilum's warnings, each once, as lines that do not run into a progress bar."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._told:
            self._told.add(text)
            clear = "\r\033[K" if sys.stderr.isatty() else ""
            print(f"{clear}warning: {text}", file=sys.stderr)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Stages warn by ``logging`` and know no terminal; while a verb runs, this is one."""
    log, handler = logging.getLogger("hilum"), _Warnings()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hilum",
        description=f"From a CT scan to a labelled, measured, explained picture of an organ and its tumours.\n{NOTICE}",
        epilog="Start with:  hilum demo\nThen:        hilum segment SCAN --model demo --out results\n"
        "Each verb teaches itself:  hilum train --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hilum {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    data.demo_words(verbs)
    data.data_words(verbs)
    train.train_words(verbs)
    study.study_words(verbs)
    segment.segment_words(verbs)
    judge.evaluate_words(verbs)
    measure.measure_words(verbs)
    model.model_words(verbs)
    return parser
