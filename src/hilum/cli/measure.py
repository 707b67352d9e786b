"""``hilum measure`` and ``hilum report``."""

from __future__ import annotations

import argparse
from glob import glob
from pathlib import Path
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of


def measure(options: argparse.Namespace) -> int:
    """Measure label maps."""
    from hilum.pipeline.measuring import measure_files

    answer = measure_files(
        options.labels,
        options.scheme,
        Path(options.out),
        scan=options.scan,
        second=_path(options.second),
        probabilities=_path(options.probabilities),
        folds=[Path(fold) for fold in options.folds or ()],
        previous=_path(options.previous),
        previous_scan=_path(options.previous_scan),
        days=options.days,
        margin_mm=options.margin,
        workers=options.workers,
        overwrite=options.overwrite,
        progress=progress_of(options),
    )
    return answered(options, answer.to_json(), answer.text(), answer.exit_code)


def report(options: argparse.Namespace) -> int:
    """Draw the pages again."""
    from hilum.pipeline.redrawing import RedrawRun, case_folders, redraw_cases
    from hilum.runs import redraw

    paths = [Path(found) for given in options.path for found in sorted(glob(given)) or [given]]
    cases = [folder for path in paths for folder in case_folders(path)]
    pages = [page for path in paths if not case_folders(path) for page in redraw(path)]
    answer = redraw_cases(cases, pdf=options.pdf, workers=options.workers, progress=progress_of(options))
    answer = RedrawRun((*pages, *answer.pages), answer.failed)
    return answered(options, answer.to_json(), answer.text(), answer.exit_code)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def measure_words(verbs: Any) -> None:
    """Words of ``hilum measure`` and ``hilum report``."""
    text = "volumes, lesions, diameters and scores of label maps, anybody's; follow-up against an earlier date"
    words = add_verb(
        verbs, "measure", measure, text, "hilum measure labels.nii.gz --scan ct.nii.gz --scheme kits --out m"
    )
    words.add_argument("labels", nargs="+", metavar="LABELS", help="label maps, folders or globs")
    words.add_argument("--scan", metavar="SCAN", help="the CT, for HU; or a folder of CTs with the cases' names")
    words.add_argument(
        "--second",
        metavar="SCAN",
        help="another phase of the CT on the same grid, for enhancement: --scan native.nii.gz --second venous.nii.gz",
    )
    words.add_argument("--scheme", required=True, metavar="NAME", help="kits, kits19, lits, abdomen")
    words.add_argument("--out", required=True, metavar="DIR", help="results folder; finished cases are not done again")
    words.add_argument("--previous", metavar="CASE_DIR|LABELS", help="the same patient earlier: growth, RECIST sums")
    words.add_argument("--previous-scan", metavar="SCAN", help="the CT of that date, where it is a label map")
    words.add_argument("--days", type=float, metavar="N", help="between the dates, if the scans do not tell")
    words.add_argument(
        "--margin",
        type=float,
        default=5.0,
        metavar="MM",
        help="of healthy tissue around a renal tumour, for the resected volume (default: 5)",
    )
    words.add_argument("--probabilities", metavar="DIR", help="what segment --probabilities wrote: volume intervals")
    words.add_argument("--folds", nargs="+", metavar="PATH", help="label maps of other folds or readers, or folders")
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core)")
    words.add_argument("--overwrite", action="store_true", help="measure finished cases again")
    text = "draw the HTML pages of cases, an evaluation or a training run again"
    words = add_verb(verbs, "report", report, text, "hilum report results/case_1 --pdf")
    words.add_argument("path", nargs="+", metavar="CASE_DIR|EVALUATION|RUN", help="or a folder of cases, or globs")
    words.add_argument("--pdf", action="store_true", help="write report.pdf beside each case's page too (extra: pdf)")
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core)")
