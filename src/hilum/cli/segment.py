"""``hilum segment``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of


def segment(options: argparse.Namespace) -> int:
    """Label scans with a model."""
    from hilum.pipeline import segment as run

    answer = run(
        options.scans,
        options.model,
        Path(options.out),
        device=options.device,
        mirror=options.mirror,
        precision=options.precision,
        region=False if options.whole else True if options.region else None,
        ensemble=options.ensemble,
        max_memory=options.max_memory,
        probabilities=options.probabilities,
        overwrite=options.overwrite,
        series=options.series,
        resample_tilt=options.resample_tilt,
        progress=progress_of(options),
    )
    text = answer.text()
    return answered(options, answer.to_json(), text, answer.exit_code)


def segment_words(verbs: Any) -> None:
    """Words of ``hilum segment``."""
    text = "label scans with a model: labels, measurements and a report for each, on the scan's own grid"
    words = add_verb(verbs, "segment", segment, text, "hilum segment ct.nii.gz dicom_folder --model demo --out results")
    words.add_argument("scans", nargs="+", metavar="SCAN", help="NIfTI, NRRD, MHA, DICOM folder or zip, or a glob")
    words.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="MODEL",
        help="a model folder, or a name of hilum model list; given several times, the models are put together",
    )
    words.add_argument("--out", required=True, metavar="DIR", help="results folder; finished cases are not done again")
    words.add_argument("--device", default="auto", metavar="cpu|cuda|auto", help="default: a GPU if there is one")
    words.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="average over mirrored copies, which takes up to eight times as long and is a little better; --no-mirror "
        "leaves them out where the model asks for them, as imported nnU-Net models do (default: as the model says)",
    )
    words.add_argument(
        "--probabilities",
        action="store_true",
        help="also write each class's probability, their entropy, and the disagreement of folds or models (0..255)",
    )
    words.add_argument(
        "--max-memory",
        default="",
        metavar="3GB",
        help="main memory that may be used: planned and said before the start, kept, refused where it cannot be; the "
        "results do not depend on it",
    )
    where = words.add_mutually_exclusive_group()
    where.add_argument(
        "--region",
        action="store_true",
        help="find organs first, then do only what lies there: faster where organs fill little of a large scan. "
        "More is done where labels touch its edge; where an organ is not found the whole scan is done. The default "
        "only for models that say so or that carry a locator, because it must be validated for each",
    )
    where.add_argument("--whole", action="store_true", help="do the whole scan, whatever the model says")
    words.add_argument(
        "--precision",
        default="auto",
        choices=["auto", "fp32", "bf16", "fp16"],
        help="of convolutions: auto is fp32 on processors, bf16 on GPUs (fp16 on older ones). bf16 on a processor "
        "changes labels where a model is unsure: Dice of 0.997 to 0.999 on what was measured",
    )
    words.add_argument(
        "--ensemble", default="mean", choices=["mean", "vote"], help="how several models decide (default: mean)"
    )
    words.add_argument("--series", metavar="UID", help="which DICOM series, where a folder holds several")
    words.add_argument("--resample-tilt", action="store_true", help="straighten a scan taken with a tilted gantry")
    words.add_argument("--overwrite", action="store_true", help="replace results of another model or input")
