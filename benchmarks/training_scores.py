"""Scores of two sides' label maps, for ``training_accuracy.py``: whole cases, and tumours one by one.

Comes in: folders of label maps of the same cases. Goes out: plain tables. Cases are scored by ``hilum evaluate`` and
compared by ``hilum compare``; intervals are paired bootstraps over cases.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

SMALL_ML = 2.0
COMPARED = (
    "region",
    "metric",
    "first",
    "first_mean",
    "second",
    "second_mean",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
)


def scored(options: argparse.Namespace, sides: dict[str, Path], out: Path) -> dict[str, Any]:
    """``hilum evaluate`` for each side, ``hilum compare`` for both, and tumours one by one."""
    found: dict[str, Any] = {}
    for protocol in ("kits23", "plain"):
        for side, predictions in sides.items():
            said = ["--truth", options.data / "truth", "--prediction", predictions, "--protocol", protocol]
            answer_of(
                "evaluate",
                *said,
                "--out",
                out / protocol / side,
                *(["--scheme", "kits"] if protocol == "plain" else []),
            )
        told = answer_of("compare", *(out / protocol / side for side in sides), "--out", out / protocol / "compared")
        rows = [row for row in told["comparisons"] if row["metric"] in ("dice", "surface_dice", "lesion_f1", "nsd_2mm")]
        found[protocol] = [{key: row[key] for key in COMPARED} for row in rows]
    found["mean Dice of the KiTS23 regions"] = mean_dice([out / "kits23" / side / "scores.json" for side in sides])
    found["tumours"] = tumours(options.data / "truth", sides)
    return found


def mean_dice(files: list[Path], draws: int = 5000) -> dict[str, Any]:
    """The mean over regions and cases of each side, second minus first, and a paired bootstrap interval over cases."""
    tables = [json.loads(file.read_text())["cases"] for file in files]
    first, second = (
        np.array([[r["dice"] for r in table[case].values()] for case in tables[0]]).mean(1) for table in tables
    )
    gain = second - first
    picks = np.random.default_rng(0).integers(len(gain), size=(draws, len(gain)))
    ends = np.percentile(gain[picks].mean(1), [2.5, 97.5])
    return {
        **{file.parent.name: float(of.mean()) for file, of in zip(files, (first, second), strict=True)},
        "difference": float(gain.mean()),
        "interval": [float(x) for x in ends],
        "cases": len(gain),
        "each": {case: [float(a), float(b)] for case, a, b in zip(tables[0], first, second, strict=True)},
    }


def answer_of(*words: Any) -> dict[str, Any]:
    """The command line's answer."""
    command = [sys.executable, "-m", "hilum", *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def tumours(truth: Path, sides: dict[str, Path], draws: int = 5000) -> dict[str, Any]:
    """F1 of tumours pooled over cases, all and those below 2 mL, with paired bootstrap intervals over cases.

    A tumour is found if one predicted piece overlaps it with an IoU above 0.1, one to one. Among small ones a true
    tumour below 2 mL counts, and of the predicted pieces those below 2 mL that match no true tumour.
    """
    from hilum.judge.lesions import find_lesions
    from hilum.labels import SCHEMES
    from hilum.scans import read_labels

    names = sorted(path.name for path in truth.glob("*.nii.gz"))
    counts: dict[str, list[list[int]]] = {side: [] for side in sides}
    for name in names:
        true = read_labels(truth / name, SCHEMES["kits"])
        for side, folder in sides.items():
            guess = read_labels(folder / name, SCHEMES["kits"])
            lesions = find_lesions(true.array == 2, guess.array == 2, true.grid)
            rows, _ = lesions.matches(0.1)
            found = np.isin(np.arange(len(lesions.truth_voxels)), lesions.pairs[rows, 0])
            taken = np.isin(np.arange(len(lesions.prediction_voxels)), lesions.pairs[rows, 1])
            little = lesions.truth_voxels * lesions.voxel_ml < SMALL_ML
            bits = lesions.prediction_voxels * lesions.voxel_ml < SMALL_ML
            all_of = [found.sum(), (~found).sum(), (~taken).sum()]
            counts[side].append([*all_of, (found & little).sum(), (~found & little).sum(), (~taken & bits).sum()])
    rng = np.random.default_rng(0)
    picks = rng.integers(len(names), size=(draws, len(names)))
    answer: dict[str, Any] = {}
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for side, table in counts.items():
        array = np.array(table)
        answer[side], drawn[side] = {}, {}
        for kind, at in (("all", 0), ("below 2 mL", 3)):
            drawn[side][kind] = _f1(array[picks][..., at : at + 3].sum(1))
            tp, missed, invented = (int(n) for n in array[:, at : at + 3].sum(0))
            answer[side][kind] = {
                "f1": float(_f1(array[:, at : at + 3].sum(0))),
                "interval": [float(x) for x in np.nanpercentile(drawn[side][kind], [2.5, 97.5])],
                "found": tp,
                "missed": missed,
                "invented": invented,
            }
    first, second = sides
    for kind in ("all", "below 2 mL"):
        gain = drawn[second][kind] - drawn[first][kind]
        answer[f"{second} minus {first}, {kind}"] = {
            "f1": answer[second][kind]["f1"] - answer[first][kind]["f1"],
            "interval": [float(x) for x in np.nanpercentile(gain, [2.5, 97.5])],
        }
    return answer


def _f1(counts: np.ndarray) -> np.ndarray:
    tp, missed, invented = (counts[..., k].astype(float) for k in range(3))
    return np.asarray(2 * tp / np.maximum(2 * tp + missed + invented, 1e-9))
