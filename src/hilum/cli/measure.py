"""``hilum measure`` and ``hilum report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of


def measure(options: argparse.Namespace) -> int:
    """Measure label maps."""
    from hilum.pipeline import measure_files

    answer = measure_files(
        options.labels, options.scheme, Path(options.out), scan=options.scan, progress=progress_of(options)
    )
    return answered(options, answer.to_json(), answer.text(), answer.exit_code)


def report(options: argparse.Namespace) -> int:
    """Draw the pages again."""
    from hilum.runs import redraw

    pages = redraw(Path(options.path))
    return answered(options, {"pages": [str(page) for page in pages]}, "\n".join(str(page) for page in pages))


def measure_words(verbs: Any) -> None:
    """Words of ``hilum measure`` and ``hilum report``."""
    text = "volumes, lesions and diameters of label maps, anybody's"
    words = add_verb(
        verbs, "measure", measure, text, "hilum measure labels.nii.gz --scan ct.nii.gz --scheme kits --out m"
    )
    words.add_argument("labels", nargs="+", metavar="LABELS", help="label maps, folders or globs")
    words.add_argument("--scan", metavar="SCAN", help="the CT, for HU (one label map only)")
    words.add_argument("--scheme", required=True, metavar="NAME", help="kits, kits19, lits, abdomen")
    words.add_argument("--out", required=True, metavar="DIR")
    text = "draw the HTML pages of a case, an evaluation or a training run again"
    words = add_verb(verbs, "report", report, text, "hilum report runs/mine")
    words.add_argument("path", metavar="CASE_DIR|EVALUATION|RUN")
