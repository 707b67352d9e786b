"""``hilum data explore``, ``slices`` and ``stack``: data sets described, cut into slices, put together again."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from hilum.cli.sets import named_path
from hilum.cli.words import add_verb, answered, progress_of
from hilum.errors import UsageError

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


def data_slices(options: argparse.Namespace) -> int:
    """Write slices as PNG."""
    from hilum.labels import scheme_from
    from hilum.survey.slices import SliceOptions, export_slices

    name, path = named_path(options.data)
    out = Path(options.out)
    how = SliceOptions(
        options.axis, _two(options.window), options.gamma, options.resize, options.crop, _share(options.empty)
    )
    report = export_slices(
        name,
        path,
        out,
        how,
        where=options.where,
        scheme=scheme_from(options.scheme) if options.scheme else None,
        labels_only=options.labels_only,
        workers=options.workers,
        progress=progress_of(options),
    )
    count = sum(len(case["slices"]) for case in report["cases"].values())
    lines = [f"failed: {case}: {why}" for case, why in report["failed"].items()]
    lines.append(f"{count} slices of {len(report['cases'])} cases in {out}, listed in {out / 'slices.csv'}")
    lines.append(f"back to label maps: hilum data stack {out} --labels RESULTS --out DIR")
    return answered(options, report, "\n".join(lines), 1 if report["failed"] else 0)


def data_stack(options: argparse.Namespace) -> int:
    """Put slices together again."""
    from hilum.survey.stack import stack

    labels = Path(options.labels) if options.labels else None
    answer = stack(
        Path(options.folder), Path(options.out), labels=labels, workers=options.workers, progress=progress_of(options)
    )
    lines = [f"failed: {case}: {why}" for case, why in answer["failed"].items()]
    if answer["without"]:
        lines.append(f"no pictures of: {', '.join(answer['without'])}")
    lines.append(f"{len(answer['cases'])} label maps in {options.out}")
    return answered(options, answer, "\n".join(lines), 1 if answer["failed"] or answer["without"] else 0)


def _two(text: str) -> tuple[float, float]:
    """``-100,400`` as two numbers."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--window {text!r}", wanted="LOW,HIGH in HU, e.g. --window -100,400") from None
    return low, high


def _share(text: str) -> float:
    """keep, drop, or a share."""
    try:
        return {"keep": 1.0, "drop": 0.0}[text] if text in ("keep", "drop") else float(text)
    except ValueError:
        raise UsageError(f"--empty {text!r}", wanted="keep, drop, or a share such as 0.1") from None


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
    text = "write slices of scans and label maps as PNG, through a window, at one size, for 2-D networks"
    words = add_verb(
        parts, "slices", data_slices, text, "hilum data slices lits=/data/lits --out png --window -100,400 --resize 512"
    )
    words.add_argument("data", metavar="NAME=PATH", help="kind and place, e.g. lits=/data/lits")
    words.add_argument("--out", required=True, metavar="DIR", help="folder to fill; run again to go on")
    words.add_argument("--where", default="", metavar="TEXT", help=_WHERE)
    words._negative_number_matcher = re.compile(r"^-[\d.]+(,-?[\d.]+)?$")  # -100,400 is a value, no option
    words.add_argument("--axis", choices=("axial", "coronal", "sagittal"), default="axial", help="(default: axial)")
    words.add_argument(
        "--window", default="-160,240", metavar="LOW,HIGH", help="HU that become black and white (default: -160,240)"
    )
    words.add_argument("--gamma", type=float, default=1.0, help="contrast after the window, x ** gamma (default: 1)")
    words.add_argument("--resize", type=int, default=0, metavar="N", help="N x N pixels (default: one pixel a voxel)")
    words.add_argument(
        "--crop",
        choices=("none", "positive", "body", "labels"),
        default="none",
        help="cut to what is above 0 HU (MONAI's CropForeground), the body, or what is labelled (default: none)",
    )
    words.add_argument(
        "--empty", default="keep", metavar="keep|drop|SHARE", help="slices without labels (default: keep)"
    )
    words.add_argument("--scheme", metavar="NAME", help="what the labels mean, where the data do not say")
    words.add_argument("--labels-only", action="store_true", help="label maps were handed on alone: ask for no image")
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core, to 8)")
    text = "put label slices together again, each case on its scan's own grid"
    words = add_verb(parts, "stack", data_stack, text, "hilum data stack png --labels predicted --out stacked")
    words.add_argument("folder", metavar="DIR", help="as 'hilum data slices' left it")
    words.add_argument("--labels", metavar="DIR", help="CASE/0034.png or CASE_0034.png (default: DIR/labels)")
    words.add_argument("--out", required=True, metavar="DIR", help="gets CASE.nii.gz")
    words.add_argument("--workers", type=int, default=None, metavar="N", help="processes (default: one a core, to 8)")
