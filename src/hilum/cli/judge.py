"""``hilum evaluate`` and ``hilum compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of


def evaluate(options: argparse.Namespace) -> int:
    """Score predictions against the truth."""
    from hilum.runs import evaluate_and_report

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
    )
    return answered(options, answer["scores"], answer["text"], answer["exit_code"])


def compare(options: argparse.Namespace) -> int:
    """Say whether models differ."""
    from hilum.judge.compare import compare as run

    answer = run([Path(path) for path in options.evaluations], Path(options.out))
    return answered(options, answer, answer["text"])


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
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core)")
    words.add_argument("--trained-on", metavar="PATH", help="MODEL, RUN, folds.json or list: warns of patients shared")
    words.add_argument("--fold", type=int, metavar="K", help="with folds.json: the fold held out")
    words.add_argument("--rank-suspects", action="store_true", help="order cases by disagreement: suspects.csv")
    text = "say whether models differ: paired by case, with intervals and corrected p-values"
    words = add_verb(verbs, "compare", compare, text, "hilum compare scores_a scores_b --out comparison")
    words.add_argument("evaluations", nargs="+", metavar="EVALUATION", help="folders that evaluate wrote")
    words.add_argument("--out", required=True, metavar="DIR")
