"""What every verb has in common: its help, its options, its answer in words or JSON, its progress."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any


def add_verb(verbs: Any, name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
    """A verb that teaches itself: help with an example, exit codes, ``--json``, ``--quiet``, ``--debug``."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}\n\nexit codes: 0 done, 1 some cases failed (each is listed), 2 wrong use",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=run)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON, for programs")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--debug", action="store_true", help="show where a fault in hilum itself happened")
    return parser


def answered(options: argparse.Namespace, value: Any, text: str, code: int = 0) -> int:
    """Print the answer, as words or JSON, and hand back the exit code."""
    from hilum.files import cannot_write, plain

    if options.json:
        text = json.dumps(plain(value), indent=1, ensure_ascii=False)
    try:
        if text:
            print(text, flush=True)  # a pipe that is closed or a disk that is full shows here, not when Python ends
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left has nowhere to go
        raise cannot_write("standard output", error) from None
    return code


def quoted(text: str) -> str:
    """A TOML string: JSON's, with every character as itself (TOML knows no pairs of \\u escapes)."""
    return json.dumps(text, ensure_ascii=False)


def progress_of(options: argparse.Namespace) -> Any:
    """Where a verb tells how far it is: the terminal, or nowhere with ``--quiet``."""
    from hilum.progress import SILENT, on_stderr

    return SILENT if options.quiet else on_stderr()
