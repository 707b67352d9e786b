"""``hilum study``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of
from hilum.errors import UsageError


def study(options: argparse.Namespace) -> int:
    """Run, evaluate, compare and tune what a study names."""
    if options.list:
        from hilum.study.design import built_in_studies, read_study

        table = {name: read_study(path).description for name, path in built_in_studies().items()}
        return answered(options, table, "\n".join(f"{name:20} {text}" for name, text in table.items()))
    if not options.study or not options.out:
        missing = "no STUDY" if not options.study else "no --out"
        raise UsageError(f"{missing} was given", wanted="hilum study STUDY --out DIR, or hilum study --list")
    from hilum.study import read_study, run_study
    from hilum.study.studying import dry_run

    asked = read_study(options.study, options.data or "", options.processes or 0)
    out = Path(options.out)
    if options.dry_run:
        plan = dry_run(asked, out, options.device)
        return answered(options, plan, plan["text"])
    answer = run_study(asked, out, device=options.device, progress=progress_of(options))
    return answered(options, answer, answer["text"], answer["exit_code"])


def study_words(verbs: Any) -> None:
    """Words of ``hilum study``."""
    text = "run networks or settings on the same folds, tune them, compare them"
    example = "hilum study five_networks --data folder=/data/my_cts --out studies/five"
    words = add_verb(verbs, "study", study, text, example)
    words.add_argument("study", nargs="?", metavar="STUDY", help="a TOML file or a built-in study (--list names them)")
    words.add_argument("--out", metavar="DIR", help="folder of this study; an interrupted one goes on")
    words.add_argument("--data", metavar="NAME=PATH", help="data set kind and place, instead of the study's own")
    words.add_argument("--processes", type=int, metavar="N", help="runs at a time, instead of the study's own")
    words.add_argument("--device", default="auto", metavar="cpu|cuda|auto", help="default: a GPU if there is one")
    words.add_argument("--dry-run", action="store_true", help="say what would be run and how long it would take")
    words.add_argument("--list", action="store_true", help="studies that ship with hilum")
