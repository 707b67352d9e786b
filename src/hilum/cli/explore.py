"""``hilum data explore``, ``slices`` and ``stack``: data sets described, cut into slices, put together again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hilum.cli.sets import named_path
from hilum.cli.words import add_verb, answered, progress_of

_WHERE = 'choose cases, e.g. "slices <= 110 and hu_min >= -1024"; an unknown name lists all'


def data_explore(options: argparse.Namespace) -> int:
    """Describe a data set."""
    from hilum.labels import scheme_from
    from hilum.survey.explore import as_text, explore

    name, path = named_path(options.data)
    report = explore(
        name,
        path,
        Path(options.out),
        where=options.where,
        scheme=scheme_from(options.scheme) if options.scheme else None,
        labels_only=options.labels_only,
        slices=options.slices,
        workers=options.workers,
        progress=progress_of(options),
    )
    text = f"{as_text(report)}\npage: {Path(options.out) / 'explore.html'}"
    return answered(options, report, text, 1 if report["summary"]["failed"] else 0)


def explore_words(parts: Any) -> None:
    """Words of the verbs in this file."""
    text = "describe every case: grid, HU, labels, lesions, as tables and a page to leaf through"
    words = add_verb(parts, "explore", data_explore, text, "hilum data explore kits23=/data/kits23 --out explored")
    words.add_argument("data", metavar="NAME=PATH", help="kind and place, e.g. lits=/data/lits")
    words.add_argument("--out", default="explored", metavar="DIR", help="tables and page (default: explored)")
    words.add_argument("--where", default="", metavar="TEXT", help=_WHERE)
    words.add_argument("--scheme", metavar="NAME", help="what the labels mean, where the data do not say")
    words.add_argument("--labels-only", action="store_true", help="label maps were handed on alone: ask for no image")
    words.add_argument(
        "--slices", type=int, default=None, metavar="N", help="a case in the page (default: by the cases; 0: none)"
    )
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core, to 8)")
