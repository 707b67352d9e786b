"""Where a reported number comes from: the ways to average that give it, background counted in or not.

Comes in: voxels by label of scored cases, and a mean that somebody reported for these predictions. Goes out: the value
by each way of averaging, and a sentence that says which of them the number is. Changes no score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hilum.errors import UsageError
from hilum.judge.overlap import ratio
from hilum.judge.scoring import CaseScore

NEAR = 0.01  # a reported number is rounded, and may come from another version of the labels
METRICS = ("iou", "dice", "accuracy")
_WAYS = {
    "labels": "the labels alone, averaged over cases",
    "labels_and_background": "labels and background as one more class, averaged over cases",
    "binary_and_background": "everything labelled as one class and background as the other, averaged over cases",
    "background": "background alone, averaged over cases",
    "voxels": "all voxels of all cases, background included",
}


def ways(scores: Mapping[str, CaseScore], metric: str) -> dict[str, float]:
    """The mean of a metric by each way of averaging that people use; only "labels" leaves background out.

    Args:
        scores: case -> score, with its ``label_counts``.
        metric: "iou", "dice" or "accuracy" (of all voxels, which has one way only).

    Raises:
        UsageError: another metric.
    """
    if metric not in METRICS:
        raise UsageError(f"claimed metric {metric!r}", wanted=f"one of {list(METRICS)}")
    counted = [score.label_counts for score in scores.values() if set(score.label_counts) - {0}]
    if not counted:
        return {}
    if metric == "accuracy":
        right = sum(tp for counts in counted for tp, _, _ in counts.values())
        whole = sum(truth for counts in counted for _, truth, _ in counts.values())
        return {"voxels": float(ratio(right, whole))}
    rows = []
    for counts in counted:
        labels = [_value(metric, cells) for value, cells in sorted(counts.items()) if value]
        background = _value(metric, counts.get(0, (0, 0, 0)))
        rows.append(
            (
                float(np.mean(labels)),
                float(np.nanmean([*labels, background])),
                float(np.nanmean([_foreground(metric, counts), background])),
                background,
            )
        )
    means = np.nanmean(np.array(rows), axis=0).tolist()
    return dict(zip(("labels", "labels_and_background", "binary_and_background", "background"), means, strict=True))


def claim_sentences(scores: Mapping[str, CaseScore], claimed: Mapping[str, float]) -> list[dict[str, Any]]:
    """For each claim its sentence: ``{"metric", "claimed", "ways", "matches", "with_background", "text"}``."""
    told = []
    for metric, value in claimed.items():
        found = {way: mean for way, mean in ways(scores, metric).items() if np.isfinite(mean)}
        matches = [way for way, mean in found.items() if abs(mean - value) <= NEAR]
        background = bool(matches) and "labels" not in matches
        if not found:
            text = f"a mean {metric} of {value:.3f} is claimed, and no case holds a label to check it on"
        elif "labels" in matches:
            text = f"the claimed mean {metric} of {value:.3f} is that of the labels alone ({found['labels']:.3f})"
        elif matches:
            text = (
                f"the claimed mean {metric} of {value:.3f} counts background in: it is what "
                f"{' and '.join(_WAYS[way] for way in matches)} gives ({found[matches[0]]:.3f})"
            )
            text += f"; the labels alone have {found['labels']:.3f}" if "labels" in found else ""
        else:
            known = ", ".join(f"{_WAYS[way]}: {mean:.3f}" for way, mean in found.items())
            text = f"the claimed mean {metric} of {value:.3f} was found by no way of averaging ({known})"
        told.append(
            {
                "metric": metric,
                "claimed": value,
                "ways": found,
                "matches": matches,
                "with_background": background,
                "text": text,
            }
        )
    return told


def _foreground(metric: str, counts: Mapping[int, tuple[int, int, int]]) -> float:
    """Of everything that is labelled, whatever its label, from the counts of background."""
    both, truth, prediction = counts.get(0, (0, 0, 0))
    whole = sum(cells[1] for cells in counts.values())
    return _value(metric, (whole - truth - prediction + both, whole - truth, whole - prediction))


def _value(metric: str, cells: tuple[int, int, int]) -> float:
    both, truth, prediction = cells
    if metric == "dice":
        return float(ratio(2 * both, truth + prediction))
    return float(ratio(both, truth + prediction - both))
