"""``hilum demo`` and ``hilum data``: scans that are made, found, looked through."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of


def demo(options: argparse.Namespace) -> int:
    """The main job on the built-in phantom."""
    from hilum.demo import run_demo

    answer = run_demo(Path(options.out), seed=options.seed, progress=progress_of(options))
    return answered(options, answer, answer["text"], 1 if answer["failed"] else 0)


def data_list(options: argparse.Namespace) -> int:
    """Kinds of data set."""
    from hilum.datasets import describe

    table = describe()
    return answered(options, table, "\n".join(f"{name:12} {text}" for name, text in table.items()))


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
        progress=progress_of(options),
    )
    text = f"{len(cases)} cases in {options.path}; train on them with: --data phantom={options.path}"
    return answered(options, {"cases": [case.name for case in cases]}, text)


def demo_words(verbs: Any) -> None:
    """Words of ``hilum demo``."""
    text = "the whole way on synthetic CT: make scans, prepare, train, segment, judge, report (a few minutes on a CPU)"
    words = add_verb(verbs, "demo", demo, text, "hilum demo --out demo")
    words.add_argument("--out", default="demo", metavar="DIR", help="where everything goes (default: demo)")
    words.add_argument("--seed", type=int, default=1, help="another set of synthetic patients (default: 1)")


def data_words(verbs: Any) -> None:
    """Words of ``hilum data ...``."""
    parser = verbs.add_parser("data", help="data sets: which kinds are known; make synthetic ones")
    parts = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    add_verb(parts, "list", data_list, "kinds of data set that train and evaluate take", "hilum data list")
    text = "write synthetic abdominal CT with exact labels (kidney, tumour, cyst)"
    words = add_verb(parts, "phantom", data_phantom, text, "hilum data phantom phantoms --cases 20 --seed 7")
    words.add_argument("path", metavar="OUT", help="folder to write to")
    words.add_argument("--cases", type=int, default=10, metavar="N", help="how many patients (default: 10)")
    words.add_argument("--seed", type=int, default=0, help="the same seed gives the same patients (default: 0)")
    words.add_argument(
        "--layout", choices=("folder", "nnunet", "kits"), default="folder", help="how files are laid out"
    )
    words.add_argument("--small", action="store_true", help="about 3 mm voxels, for laptops")
    words.add_argument("--labels", choices=("kits", "abdomen"), default="kits", help="which labels (default: kits)")
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core)")
