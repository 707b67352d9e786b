"""LiTS's correspondence of predicted and true lesions, as its scorer makes it, and as it was meant.

Comes in: sizes of components and how many voxels they share. Goes out: which belong together and what counts as found.
Source: PatrickChrist/lits-challenge-scoring ``program/helpers/calc_metric.py`` (0cbafa5), function ``detect_lesions``;
everything it counts on masks is counted here on the table of overlaps.

The scorer first merges true lesions that one prediction bridges, then predictions that lie on one true lesion, and then
asks how well each group overlaps. Its last step has faults that its leaderboard is made of (``official=True`` keeps
them): the union is taken with whatever carries the *prediction's* number in a mask that holds *reference* numbers; a
rejected group takes away as many detections as references were merged into it, though it had been counted once; and
numbers above 255 wrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Detection:
    """What was found.

    Attributes:
        tp: detections (the official count can be negative).
        fp: predicted components less detections.
        fn: true components less detections.
        hits: predicted components that take part in a detection; the official precision uses ``tp`` instead.
        groups: per detected object the ids (from 1) of its predicted and of its true components.
    """

    tp: int
    fp: int
    fn: int
    hits: int
    groups: list[tuple[list[int], list[int]]]


def detect(
    truth_voxels: np.ndarray, prediction_voxels: np.ndarray, shared: np.ndarray, above: float, official: bool = True
) -> Detection:
    """Match components.

    Args:
        truth_voxels: (T,) sizes of true components, ids 1..T in scan order.
        prediction_voxels: (P,) sizes of predicted components.
        shared: (P, T) voxels in common.
        above: overlap that a detection must exceed.
        official: with the scorer's faults, or with the intersection over union it documents and every merged true
            lesion counted as one.
    """
    n_truth, n_prediction = len(truth_voxels), len(prediction_voxels)
    touching = np.flatnonzero(shared.any(axis=1))
    table = shared[touching].astype(np.int64)
    columns, merged = _merge_truths(table)
    if not touching.size:
        return Detection(0, n_prediction, n_truth, 0, [])
    table = np.stack([table[:, members].sum(axis=1) for members in columns], axis=1)
    best = table.argmax(axis=1)
    groups = [(np.flatnonzero(best == j), members) for j, members in enumerate(columns) if (best == j).any()]
    if official:
        return _official(touching, groups, columns, merged, truth_voxels, prediction_voxels, shared, above)
    kept = []
    for rows, members in groups:
        predictions = touching[rows]
        common = shared[predictions][:, members].sum()
        union = prediction_voxels[predictions].sum() + truth_voxels[members].sum() - common
        if common > above * union:
            kept.append(((predictions + 1).tolist(), [m + 1 for m in members]))
    found, hits = sum(len(true) for _, true in kept), sum(len(predicted) for predicted, _ in kept)
    return Detection(found, n_prediction - hits, n_truth - found, hits, kept)


def _merge_truths(table: np.ndarray) -> tuple[list[list[int]], dict[int, int]]:
    """True lesions by group, in the order of their first; and how many were merged in each one's last merging.

    For each prediction in turn: of the true lesions (or groups made so far) that it touches, those which no other
    prediction touches more (the first at equal counts) become one.
    """
    columns = [[j] for j in range(table.shape[1])]
    merged = dict.fromkeys(range(table.shape[1]), 1)
    table = table.copy()
    for i in range(len(table)):
        chosen = [j for j in np.flatnonzero(table[i]) if int(table[:, j].argmax()) == i]
        for j in chosen:
            merged[columns[j][0]] = len(chosen)
        if len(chosen) > 1:
            first, rest = chosen[0], chosen[1:]
            table[:, first] = table[:, chosen].sum(axis=1)
            columns[first] = [member for j in chosen for member in columns[j]]
            table = np.delete(table, rest, axis=1)
            columns = [members for j, members in enumerate(columns) if j not in set(rest)]
    return columns, merged


def _official(
    touching: np.ndarray,
    groups: list[tuple[np.ndarray, list[int]]],
    columns: list[list[int]],
    merged: dict[int, int],
    truth_voxels: np.ndarray,
    prediction_voxels: np.ndarray,
    shared: np.ndarray,
    above: float,
) -> Detection:
    """The scorer's last step, on numbers instead of masks; ids count from 1 and live in 8 bits."""
    carried = np.zeros(len(prediction_voxels), np.int64)  # which number each predicted component bears in its mask
    for rows, members in groups:
        carried[touching[rows]] = (members[0] + 1) & 255
    found = len(groups)
    # the scorer walks over predictions, each group standing at its first
    for rows, members in sorted(groups, key=lambda group: int(group[0][0])):
        predictions = touching[rows]
        common = int(shared[predictions][:, members].sum())
        bearing = carried == int(predictions[0]) + 1
        union = int(prediction_voxels[bearing].sum() + truth_voxels[members].sum())
        union -= int(shared[bearing][:, members].sum())
        if common / union <= above:
            carried[carried == members[0] + 1] = 0
            found -= merged[members[0]]
    by_first = {members[0] + 1: members for members in columns}
    objects = []
    for number in np.unique(carried[carried > 0]).tolist():
        true = [member + 1 for member in by_first.get(number, [])]
        objects.append(((np.flatnonzero(carried == number) + 1).tolist(), true))
    n_prediction, n_truth = len(prediction_voxels), len(truth_voxels)
    return Detection(found, n_prediction - found, n_truth - found, found, objects)
