"""``hilum demo`` and ``hilum data``: scans that are made, found, looked through."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hilum.cli.explore import explore_words
from hilum.cli.sets import set_words
from hilum.cli.words import add_verb, answered, progress_of


def demo(options: argparse.Namespace) -> int:
    """The main job on the built-in phantom."""
    from hilum.demo import run_demo

    answer = run_demo(Path(options.out), seed=options.seed, progress=progress_of(options))
    return answered(options, answer, answer["text"], 1 if answer["failed"] else 0)


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
        phase=options.phase,
        appearance=options.appearance,
        shape=_three(options.shape, int, "--shape"),
        spacing_mm=_three(options.spacing, float, "--spacing"),
        workers=options.workers,
        progress=progress_of(options),
    )
    text = f"{len(cases)} cases in {options.path}; train on them with: --data phantom={options.path}"
    return answered(options, {"cases": [case.name for case in cases]}, text)


def data_paint(options: argparse.Namespace) -> int:
    """Paint CT around real label maps."""
    from hilum.phantom.painting import paint_set

    made = paint_set(
        Path(options.labels_dir),
        Path(options.out),
        seed=options.seed,
        phase=options.phase,
        appearance=options.appearance,
        every=options.every,
        organs=options.organs,
        workers=options.workers,
        progress=progress_of(options),
    )
    lines = [f"{len(made.cases)} cases in {options.out}; train on them with: --data phantom={options.out}"]
    lines += [f"failed: {name}: {why}" for name, why in sorted(made.failures.items())]
    answer = {"cases": list(made.cases), "failures": made.failures}
    return answered(options, answer, "\n".join(lines), 1 if made.failures else 0)


def _three(text: str | None, kind: Any, option: str) -> Any:
    """ "512,512,120" as three numbers; None stays None."""
    from hilum.errors import UsageError

    if text is None:
        return None
    try:
        a, b, c = (kind(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r}", wanted="three numbers such as 512,512,120 or 0.8,0.8,3") from None
    return a, b, c


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
    set_words(parts)
    explore_words(parts)
    text = "write synthetic abdominal CT with exact labels (kidney, tumour, cyst)"
    words = add_verb(parts, "phantom", data_phantom, text, "hilum data phantom phantoms --cases 20 --seed 7")
    words.add_argument("path", metavar="OUT", help="folder to write to")
    words.add_argument("--cases", type=int, default=10, metavar="N", help="how many patients (default: 10)")
    words.add_argument("--seed", type=int, default=0, help="the same seed gives the same patients (default: 0)")
    words.add_argument(
        "--layout",
        choices=("folder", "nnunet", "kits23", "kits", "lits", "msd", "ircadb", "dicom"),
        default="folder",
        help="files as which set has them (default: folder; kits is kits23)",
    )
    words.add_argument("--small", action="store_true", help="about 3 mm voxels, for laptops")
    words.add_argument(
        "--labels",
        choices=("kits", "abdomen", "lits", "ircadb", "trunk"),
        default=None,
        help="which labels (default: what the layout's set has; kits for folder, nnunet and dicom)",
    )
    words.add_argument(
        "--phase",
        choices=("none", "arterial", "nephrographic", "delayed", "excretory"),
        default=None,
        help="contrast phase of all (default: drawn for each)",
    )
    words.add_argument(
        "--appearance",
        choices=("usual", "random"),
        default="usual",
        help="random: brightness and noise vary far beyond scans, to train on synthetic CT alone",
    )
    words.add_argument("--shape", metavar="X,Y,Z", help="columns, rows, slices (default: as KiTS23's cases vary)")
    words.add_argument("--spacing", metavar="X,Y,Z", help="mm between columns, rows, slices")
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core)")
    text = "paint synthetic CT around real KiTS label maps, whose voxels stay exactly as they are"
    words = add_verb(parts, "paint", data_paint, text, "hilum data paint --labels kits23/dataset --out painted")
    words.add_argument(
        "--labels", dest="labels_dir", required=True, metavar="DIR", help="NAME.nii.gz or NAME/segmentation.nii.gz"
    )
    words.add_argument("--out", required=True, metavar="DIR", help="folder to write to; a run that was killed goes on")
    words.add_argument("--seed", type=int, default=0, help="the same seed paints the same bodies (default: 0)")
    words.add_argument(
        "--phase",
        choices=("none", "arterial", "nephrographic", "delayed", "excretory"),
        default=None,
        help="contrast phase of all (default: drawn for each)",
    )
    words.add_argument("--appearance", choices=("usual", "random"), default="usual", help="as for phantom")
    words.add_argument(
        "--organs", action="store_true", help="write a second label map with the painted liver and spleen in it too"
    )
    words.add_argument(
        "--every", type=int, default=1, metavar="N", help="keep every Nth column and row only (default: 1, all)"
    )
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core)")
