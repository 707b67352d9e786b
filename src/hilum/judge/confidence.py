"""How sure a model was and whether it was right to be: FROC of lesions, calibration of voxels.

Comes in: a region's true voxels and its predicted probability in every voxel, case by case. Goes out: per case what can
be added up over cases; over cases sensitivity at false positives a scan, expected calibration error, Brier score, the
points of both curves, with intervals by patient. Knows no files and no challenge.

*Candidates* are the 26-connected pieces in which the probability is ``FLOOR`` or more; a candidate is as sure as its
surest voxel. At a threshold a lesion is found if a candidate that sure touches it, and a candidate that touches no
lesion is a false positive. FROC: Chakraborty 1989; the seven rates are those of LUNA16 (Setio et al. 2017).

*Calibration* looks at the voxels in which the truth holds the region or the model gave it any probability: over a whole
scan, nearly all of which is background that everybody is sure of, every model would look calibrated. ECE with ten
equal bins: Naeini et al. 2015, Guo et al. 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.components import components_of, nonzero_box
from hilum.judge.lesions import Neighbours
from hilum.judge.overlap import ratio
from hilum.judge.statistics import intervals, patient_weights

FLOOR = 0.1
RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # false positives a scan
BINS = 10
FIELD = "voxels in which the truth holds the region or its probability is above 0"
POINTS = 200  # of a curve in scores.json


@dataclass(frozen=True, eq=False)
class Confidence:
    """One region of one case.

    Attributes:
        found: (T,) for each true lesion the surest candidate that touches it; 0 if none does.
        invented: (F,) how sure the candidates are that touch no lesion.
        bins: (BINS, 3) voxels, sum of probabilities, voxels of the truth, by probability.
        square: sum of squared differences of probability and truth.
    """

    found: np.ndarray
    invented: np.ndarray
    bins: np.ndarray
    square: float


def measure_confidence(truth: np.ndarray, shares: np.ndarray, connectivity: Neighbours = 26) -> Confidence:
    """One region of one case.

    Args:
        truth: boolean, 3-D.
        shares: probabilities 0..1 of the same shape.
        connectivity: of true lesions and of candidates.
    """
    assert truth.shape == shares.shape, (truth.shape, shares.shape)
    box = nonzero_box(truth | (shares > 0))
    if box is None:
        return Confidence(np.zeros(0), np.zeros(0), np.zeros((BINS, 3)), 0.0)
    truth, shares = truth[box], shares[box].astype(np.float64)
    field = truth | (shares > 0)
    p, y = shares[field], truth[field]
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    bins = np.stack([np.bincount(place, weight, BINS) for weight in (np.ones(len(p)), p, y)], axis=1)
    found, invented = _candidates(truth, shares, connectivity)
    return Confidence(found, invented, bins, float(((p - y) ** 2).sum()))


def _candidates(truth: np.ndarray, shares: np.ndarray, connectivity: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """Confidence by which each lesion is found, and of the candidates that touch none."""
    lesions, n_lesions = components_of(truth, connectivity) if truth.any() else (np.zeros(truth.shape, int), 0)
    sure = shares >= FLOOR
    found = np.zeros(n_lesions)
    if not sure.any():
        return found, np.zeros(0)
    candidates, count = components_of(sure, connectivity)
    inside = candidates > 0
    surest = np.zeros(count + 1)
    np.maximum.at(surest, candidates[inside], shares[inside])
    both = inside & (lesions > 0)
    pairs = np.unique(np.stack([lesions[both], candidates[both]]).astype(np.int64), axis=1)
    np.maximum.at(found, pairs[0] - 1, surest[pairs[1]])
    alone = np.ones(count + 1, bool)
    alone[0] = False
    alone[pairs[1]] = False
    return found, surest[alone]


def confidence_table(cases: Sequence[Confidence], patients: Sequence[str], lesions: bool) -> dict[str, Any]:
    """Curves and numbers of one region over cases: ``{"calibration": {...}, "froc": {...} if it is made of lesions}``.

    Args:
        cases: one a case.
        patients: one name a case; intervals are bootstrapped over them.
        lesions: whether the region's pieces are lesions; FROC of a kidney means nothing.
    """
    weights = np.vstack([np.ones(len(cases)), patient_weights(patients)])
    enough = len(set(patients)) > 1
    table: dict[str, Any] = {"calibration": _calibration(cases, weights, enough)}
    if lesions and any(len(case.found) for case in cases):
        table["froc"] = _froc(cases, weights, enough)
    return table


def ece(bins: np.ndarray) -> np.ndarray:
    """Expected calibration error of (..., BINS, 3) bins: mean |probability - truth|, weighted by voxels."""
    voxels, summed, true = np.moveaxis(bins, -1, 0)
    return np.asarray(ratio(np.abs(summed - true).sum(axis=-1), voxels.sum(axis=-1)))


def _calibration(cases: Sequence[Confidence], weights: np.ndarray, enough: bool) -> dict[str, Any]:
    bins = np.tensordot(weights, np.array([case.bins for case in cases]), axes=1)
    square = weights @ np.array([case.square for case in cases])
    rows = [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "voxels": int(voxels),
            "probability": float(ratio(summed, voxels)),
            "observed": float(ratio(true, voxels)),
        }
        for i, (voxels, summed, true) in enumerate(bins[0])
    ]
    brier = np.asarray(ratio(square, bins[..., 0].sum(axis=-1)))
    return {
        "field": FIELD,
        "ece": _estimate(ece(bins), enough, len(cases)),
        "brier": _estimate(brier, enough, len(cases)),
        "bins": rows,
    }


def _froc(cases: Sequence[Confidence], weights: np.ndarray, enough: bool) -> dict[str, Any]:
    scans = weights.sum(axis=1)
    sides = []
    for values in ([case.invented for case in cases], [case.found for case in cases]):
        owner = np.repeat(np.arange(len(cases)), [len(v) for v in values])
        marks = np.concatenate(values)
        order = np.argsort(-marks, kind="stable")
        sides.append((marks[order], owner[order]))
    (invented, invented_of), (found, found_of) = sides
    lesions = weights @ np.array([len(case.found) for case in cases], float)
    thresholds = np.unique(np.concatenate([invented, found[found > 0]]))[::-1]
    if not thresholds.size:
        thresholds = np.ones(1)
    wrong = np.empty((len(weights), len(thresholds)))
    right = np.empty_like(wrong)
    for draw, weight in enumerate(weights):  # row by row: the table of all would not fit for a noisy model
        for marks, owner, out in ((invented, invented_of, wrong), (found, found_of, right)):
            summed = np.concatenate([[0.0], np.cumsum(weight[owner])])
            out[draw] = summed[np.searchsorted(-marks, -thresholds, side="right")]
    wrong, right = wrong / scans[:, None], np.asarray(ratio(right, lesions[:, None]))
    at = np.stack([_at_rate(wrong, right, rate) for rate in RATES], axis=1)
    chosen = np.unique(np.linspace(0, len(thresholds) - 1, POINTS).astype(int))
    return {
        "candidates": f"26-connected pieces with a probability of {FLOOR:g} or more; found: touches a lesion",
        "rates": list(RATES),
        "sensitivity": [_estimate(column, enough, len(cases)) for column in at.T],
        "mean_sensitivity": _estimate(at.mean(axis=1), enough, len(cases)),
        "lesions": int(lesions[0]),
        "curve": [[float(wrong[0, i]), float(right[0, i]), float(thresholds[i])] for i in chosen],
    }


def _at_rate(wrong: np.ndarray, right: np.ndarray, rate: float) -> np.ndarray:
    """The sensitivity of every draw at the lowest threshold with no more false positives a scan than ``rate``."""
    last = (wrong <= rate + 1e-12).sum(axis=1) - 1
    values = np.take_along_axis(right, np.maximum(last, 0)[:, None], axis=1)[:, 0]
    return np.where(last >= 0, values, 0.0)


def _estimate(draws: np.ndarray, enough: bool, n: int) -> dict[str, Any]:
    low, high = intervals(draws[1:, None]) if enough else (np.array([np.nan]),) * 2
    return {"value": float(draws[0]), "low": float(low[0]), "high": float(high[0]), "n": n}
