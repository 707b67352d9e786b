"""The command line: one function a verb, each a lazy import and one call.

Comes in: words. Goes out: an exit code (0 done, 1 some cases failed and are listed, 2 wrong use). This is the only
module that prints; nothing heavy is imported before a verb asks for it, so that ``hilum --help`` is instant.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hilum import __version__
from hilum.errors import HilumError, UsageError

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


def demo(options: argparse.Namespace) -> int:
    """The main job on the built-in phantom."""
    from hilum.demo import run_demo

    answer = run_demo(Path(options.out), seed=options.seed, progress=_progress(options))
    return _answer(options, answer, answer["text"], 1 if answer["failed"] else 0)


def data_list(options: argparse.Namespace) -> int:
    """Kinds of data set."""
    from hilum.datasets import describe

    table = describe()
    return _answer(options, table, "\n".join(f"{name:12} {text}" for name, text in table.items()))


def data_phantom(options: argparse.Namespace) -> int:
    """Write synthetic CT with exact labels."""
    from hilum.phantom import write_set

    cases = write_set(
        Path(options.path),
        options.cases,
        options.seed,
        layout=options.layout,
        small=options.small,
        labels=options.labels,
        workers=options.workers,
        progress=_progress(options),
    )
    text = f"{len(cases)} cases in {options.path}; train on them with: --data phantom={options.path}"
    return _answer(options, {"cases": [case.name for case in cases]}, text)


def train(options: argparse.Namespace) -> int:
    """Train, then judge on the held-out cases."""
    from hilum.config import read_recipe
    from hilum.runs import train_and_validate

    overrides = [*(options.set or [])]
    if options.data:
        name, equals, path = options.data.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"--data {options.data!r}", wanted="NAME=PATH, e.g. folder=/data/ct")
        overrides += [f"data.dataset={_quoted(name)}", f"data.path={_quoted(path)}"]
    if options.budget:
        overrides.append(f"training.budget={_quoted(options.budget)}")
    recipe = read_recipe(options.recipe, overrides)
    answer = train_and_validate(
        recipe,
        Path(options.out),
        fold=options.fold,
        device=options.device,
        resume=not options.restart,
        progress=_progress(options),
    )
    return _answer(options, answer, answer["text"], 1 if answer["failed"] else 0)


def segment(options: argparse.Namespace) -> int:
    """Label scans with a model."""
    from hilum.pipeline import segment as run

    answer = run(
        options.scans,
        options.model,
        Path(options.out),
        device=options.device,
        mirror=True if options.mirror else None,
        probabilities=options.probabilities,
        overwrite=options.overwrite,
        series=options.series,
        resample_tilt=options.resample_tilt,
        progress=_progress(options),
    )
    text = answer.text()
    return _answer(options, answer.to_json(), text, answer.exit_code)


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
        progress=_progress(options),
        trained_on=Path(options.trained_on) if options.trained_on else None,
        fold=options.fold,
        suspects=options.rank_suspects,
    )
    return _answer(options, answer["scores"], answer["text"], answer["exit_code"])


def compare(options: argparse.Namespace) -> int:
    """Say whether models differ."""
    from hilum.judge.compare import compare as run

    answer = run([Path(path) for path in options.evaluations], Path(options.out))
    return _answer(options, answer, answer["text"])


def measure(options: argparse.Namespace) -> int:
    """Measure label maps."""
    from hilum.pipeline import measure_files

    answer = measure_files(
        options.labels, options.scheme, Path(options.out), scan=options.scan, progress=_progress(options)
    )
    return _answer(options, answer.to_json(), answer.text(), answer.exit_code)


def report(options: argparse.Namespace) -> int:
    """Draw the pages again."""
    from hilum.runs import redraw

    pages = redraw(Path(options.path))
    return _answer(options, {"pages": [str(page) for page in pages]}, "\n".join(str(page) for page in pages))


def model_list(options: argparse.Namespace) -> int:
    """Models that ship with hilum; networks that can be trained."""
    from hilum.model import built_in_models

    models = built_in_models()
    lines = [f"{name:12} {text}" for name, text in models.items()]
    if options.networks:
        from hilum.networks import overview

        return _answer(options, *overview())
    return _answer(options, models, "\n".join(lines))


def model_show(options: argparse.Namespace) -> int:
    """A model's card, plan and labels."""
    from hilum.model import load_model

    facts = load_model(options.model).facts()
    return _answer(options, facts, json.dumps(facts, indent=1, ensure_ascii=False))


def recipes(options: argparse.Namespace) -> int:
    """Recipes that ship with hilum."""
    from hilum.config import built_in_recipes, read_recipe

    table = {name: read_recipe(path).description for name, path in built_in_recipes().items()}
    return _answer(options, table, "\n".join(f"{name:16} {text}" for name, text in table.items()))


def _answer(options: argparse.Namespace, value: Any, text: str, code: int = 0) -> int:
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


def _quoted(text: str) -> str:
    """A TOML string: JSON's, with every character as itself (TOML knows no pairs of \\u escapes)."""
    return json.dumps(text, ensure_ascii=False)


def _progress(options: argparse.Namespace) -> Any:
    from hilum.progress import SILENT, on_stderr

    return SILENT if options.quiet else on_stderr()


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
    _demo_words(verbs)
    _data_words(verbs)
    _train_words(verbs)
    _segment_words(verbs)
    _evaluate_words(verbs)
    _measure_words(verbs)
    _model_words(verbs)
    return parser


def _verb(verbs: Any, name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
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


def _demo_words(verbs: Any) -> None:
    text = "the whole way on synthetic CT: make scans, prepare, train, segment, judge, report (a few minutes on a CPU)"
    words = _verb(verbs, "demo", demo, text, "hilum demo --out demo")
    words.add_argument("--out", default="demo", metavar="DIR", help="where everything goes (default: demo)")
    words.add_argument("--seed", type=int, default=1, help="another set of synthetic patients (default: 1)")


def _data_words(verbs: Any) -> None:
    parser = verbs.add_parser("data", help="data sets: which kinds are known; make synthetic ones")
    parts = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _verb(parts, "list", data_list, "kinds of data set that train and evaluate take", "hilum data list")
    text = "write synthetic abdominal CT with exact labels (kidney, tumour, cyst)"
    words = _verb(parts, "phantom", data_phantom, text, "hilum data phantom phantoms --cases 20 --seed 7")
    words.add_argument("path", metavar="OUT", help="folder to write to")
    words.add_argument("--cases", type=int, default=10, metavar="N", help="how many patients (default: 10)")
    words.add_argument("--seed", type=int, default=0, help="the same seed gives the same patients (default: 0)")
    words.add_argument(
        "--layout", choices=("folder", "nnunet", "kits"), default="folder", help="how files are laid out"
    )
    words.add_argument("--small", action="store_true", help="about 3 mm voxels, for laptops")
    words.add_argument("--labels", choices=("kits", "abdomen"), default="kits", help="which labels (default: kits)")
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core)")


def _train_words(verbs: Any) -> None:
    text = "train a network by a recipe, then judge it on the held-out cases"
    example = "hilum train default --data folder=/data/my_cts --out runs/mine --budget 2h"
    words = _verb(verbs, "train", train, text, example)
    words.add_argument("recipe", metavar="RECIPE", help="a TOML file or a built-in recipe (hilum recipes lists them)")
    words.add_argument("--data", metavar="NAME=PATH", help="data set kind and place, e.g. folder=/data/ct")
    words.add_argument("--out", required=True, metavar="RUN", help="folder of this run; an interrupted run goes on")
    words.add_argument("--fold", default="0", metavar="K|all", help="which fold is held out; all: none (default: 0)")
    words.add_argument("--budget", metavar="TIME", help="training time such as 30min or 2h; the schedule fits itself")
    words.add_argument("--set", action="append", metavar="KEY=VALUE", help="override, e.g. training.steps=500")
    words.add_argument("--device", default="auto", metavar="cpu|cuda|auto", help="default: a GPU if there is one")
    words.add_argument("--restart", action="store_true", help="begin anew although RUN holds a checkpoint")
    words.add_argument("--resume", action="store_true", help="go on where RUN stopped (this is the default)")
    _verb(verbs, "recipes", recipes, "recipes that ship with hilum", "hilum recipes")


def _segment_words(verbs: Any) -> None:
    text = "label scans with a model: labels, measurements and a report for each, on the scan's own grid"
    words = _verb(verbs, "segment", segment, text, "hilum segment ct.nii.gz dicom_folder --model demo --out results")
    words.add_argument("scans", nargs="+", metavar="SCAN", help="NIfTI, NRRD, MHA, DICOM folder or zip, or a glob")
    words.add_argument("--model", required=True, metavar="MODEL", help="a model folder, or a name of hilum model list")
    words.add_argument("--out", required=True, metavar="DIR", help="results folder; finished cases are not done again")
    words.add_argument("--device", default="auto", metavar="cpu|cuda|auto", help="default: a GPU if there is one")
    words.add_argument("--mirror", action="store_true", help="average over mirrored copies (slower, a little better)")
    words.add_argument("--probabilities", action="store_true", help="also write each class's probability (0..255)")
    words.add_argument("--series", metavar="UID", help="which DICOM series, where a folder holds several")
    words.add_argument("--resample-tilt", action="store_true", help="straighten a scan taken with a tilted gantry")
    words.add_argument("--overwrite", action="store_true", help="replace results of another model or input")


def _evaluate_words(verbs: Any) -> None:
    text = "score predicted label maps against the truth with a challenge's own rules"
    example = "hilum evaluate --truth labels --prediction results --protocol kits23 --out scores"
    words = _verb(verbs, "evaluate", evaluate, text, example)
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
    words = _verb(verbs, "compare", compare, text, "hilum compare scores_a scores_b --out comparison")
    words.add_argument("evaluations", nargs="+", metavar="EVALUATION", help="folders that evaluate wrote")
    words.add_argument("--out", required=True, metavar="DIR")


def _measure_words(verbs: Any) -> None:
    text = "volumes, lesions and diameters of label maps, anybody's"
    words = _verb(verbs, "measure", measure, text, "hilum measure labels.nii.gz --scan ct.nii.gz --scheme kits --out m")
    words.add_argument("labels", nargs="+", metavar="LABELS", help="label maps, folders or globs")
    words.add_argument("--scan", metavar="SCAN", help="the CT, for HU (one label map only)")
    words.add_argument("--scheme", required=True, metavar="NAME", help="kits, kits19, lits, abdomen")
    words.add_argument("--out", required=True, metavar="DIR")
    text = "draw the HTML pages of a case, an evaluation or a training run again"
    words = _verb(verbs, "report", report, text, "hilum report runs/mine")
    words.add_argument("path", metavar="CASE_DIR|EVALUATION|RUN")


def _model_words(verbs: Any) -> None:
    parser = verbs.add_parser("model", help="models: list, show")
    parts = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    words = _verb(parts, "list", model_list, "models that ship with hilum", "hilum model list")
    words.add_argument("--networks", action="store_true", help="networks that can be trained instead")
    words = _verb(parts, "show", model_show, "a model's card, plan and labels", "hilum model show demo")
    words.add_argument("model", metavar="MODEL")
