"""``hilum evaluate`` and ``hilum compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of


def evaluate(options: argparse.Namespace) -> int:
    """Score predictions against the truth."""
    from hilum.judge.scoring import ScoreOptions
    from hilum.runs import evaluate_and_report

    chosen = {
        "tolerances_mm": options.tolerance and tuple(options.tolerance),
        "lesion_iou": options.lesion_iou,
        "connectivity": options.connectivity,
        "diameters_mm": options.lesion_bin and tuple(options.lesion_bin),
    }

    answer = evaluate_and_report(
        Path(options.truth),
        Path(options.prediction),
        options.protocol,
        Path(options.out),
        scheme=options.scheme,
        missing=options.missing,
        workers=options.workers,
        progress=progress_of(options),
        trained_on=Path(options.trained_on) if options.trained_on else None,
        fold=options.fold,
        suspects=options.rank_suspects,
        scans=Path(options.scans) if options.scans else None,
        probabilities=Path(options.probabilities) if options.probabilities else None,
        claimed=numbers_of(options.claimed, "--claimed"),
        figures=options.figures,
        options=ScoreOptions(**{name: value for name, value in chosen.items() if value is not None}),
    )
    return answered(options, answer["scores"], answer["text"], answer["exit_code"])


def compare(options: argparse.Namespace) -> int:
    """Say whether models differ."""
    from hilum.runs import compare_and_report

    answer = compare_and_report(
        [Path(path) for path in options.evaluations],
        Path(options.out),
        numbers_of(options.margin, "--margin"),
        Path(options.groups) if options.groups else None,
        numbers_of(options.claim, "--claim"),
        options.figures,
    )
    return answered(options, answer, answer["text"])


def numbers_of(texts: list[str], option: str) -> dict[str, float]:
    """``["dice=0.01"]`` as a table."""
    from hilum.errors import UsageError

    table = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            table[name.strip()] = float(value)
        except ValueError:
            raise UsageError(f"{option} {text!r}", wanted="METRIC=NUMBER, e.g. dice=0.01") from None
    return table


def evaluate_words(verbs: Any) -> None:
    """Words of ``hilum evaluate`` and ``hilum compare``."""
    text = "score predicted label maps against the truth with a challenge's own rules"
    example = "hilum evaluate --truth labels --prediction results --protocol kits23 --out scores"
    words = add_verb(verbs, "evaluate", evaluate, text, example)
    words.add_argument("--truth", required=True, metavar="DIR", help="reference label maps")
    words.add_argument("--prediction", required=True, metavar="DIR", help="predicted label maps of the same case names")
    words.add_argument("--protocol", required=True, metavar="NAME", help="an unknown name lists the known ones")
    words.add_argument("--out", required=True, metavar="DIR", help="scores.json, scores.csv, report.html")
    words.add_argument("--scheme", metavar="NAME", help="label scheme, for protocols that take any (plain, msd)")
    words.add_argument("--missing", choices=("fail", "skip", "zero"), default="fail", help="a case without prediction")
    words.add_argument("--workers", type=int, default=None, metavar="N", help="cases at once (default: one a core)")
    words.add_argument("--trained-on", metavar="PATH", help="MODEL, RUN, folds.json or list: warns of patients shared")
    words.add_argument("--fold", type=int, metavar="K", help="with folds.json: the fold held out")
    words.add_argument("--rank-suspects", action="store_true", help="order cases by disagreement: suspects.csv")
    words.add_argument("--scans", metavar="DIR", help="the cases' CT, for the pictures")
    words.add_argument("--probabilities", metavar="DIR", help="DIR/CASE/probabilities_LABEL.nii.gz: FROC, calibration")
    words.add_argument(
        "--claimed",
        action="append",
        default=[],
        metavar="METRIC=X",
        help="a reported mean iou, dice or accuracy: whence?",
    )
    words.add_argument(
        "--tolerance", action="append", type=float, metavar="MM", help="of NSD, again for more (default: 1 2 3 5 7)"
    )
    words.add_argument("--lesion-iou", type=float, metavar="X", help="a lesion is found above this IoU (default: 0.5)")
    words.add_argument("--connectivity", type=int, choices=(6, 18, 26), help="neighbours of one lesion (default: 26)")
    words.add_argument(
        "--lesion-bin", action="append", type=float, metavar="MM", help="borders of lesion sizes (default: 10 20 40)"
    )
    words.add_argument("--figures", action="store_true", help="also charts and panels for a paper: PNG at 300 dpi, SVG")
    text = "say whether models differ: paired by case, with intervals and corrected p-values"
    words = add_verb(verbs, "compare", compare, text, "hilum compare scores_a scores_b --out comparison")
    words.add_argument("evaluations", nargs="+", metavar="EVALUATION", help="folders that evaluate wrote")
    words.add_argument("--out", required=True, metavar="DIR", help="comparison.json, comparison.csv, report.html")
    words.add_argument(
        "--margin", action="append", default=[], metavar="METRIC=X", help="how much worse is still not inferior"
    )
    words.add_argument(
        "--groups", metavar="CSV", help="column case and traits: compare within each (size, phase, site)"
    )
    words.add_argument(
        "--claim", action="append", default=[], metavar="METRIC=X", help="how many patients would show this difference"
    )
    words.add_argument("--figures", action="store_true", help="also the charts for a paper: PNG at 300 dpi, SVG")
