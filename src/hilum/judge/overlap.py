"""Voxel overlap from one confusion count: Dice, IoU, precision, sensitivity, specificity, accuracy, MCC.

Comes in: two label arrays of one shape, truth before prediction, or the four counts of a region. Goes out: numbers; NaN
where a formula says 0/0. Background is never scored as a class and never averaged in. The module knows no files, no
spacing and no challenge: what an empty region is worth is a protocol's business.

One pass over the voxels (``joint_counts``) serves every region of every scheme: a region's four counts are sums of a
256 x 256 table. True negatives depend on the field of view, so ``Counts`` says in which voxels they were counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

WHOLE_ARRAY = "every voxel of the stored array"


@dataclass(frozen=True)
class Counts:
    """The confusion counts of one region, in voxels (whole numbers, or arrays of them for many cases at once).

    Attributes:
        tp: in truth and prediction.
        fp: in the prediction alone.
        fn: in the truth alone.
        tn: in neither, within ``field``.
        field: in which voxels ``tn`` was counted; specificity and accuracy mean nothing without it.
    """

    tp: Any
    fp: Any
    fn: Any
    tn: Any
    field: str = WHOLE_ARRAY

    @property
    def truth(self) -> Any:
        """Voxels of the truth."""
        return self.tp + self.fn

    @property
    def prediction(self) -> Any:
        """Voxels of the prediction."""
        return self.tp + self.fp


def joint_counts(truth: np.ndarray, prediction: np.ndarray, outside: int = 0) -> np.ndarray:
    """How often each pair of labels occurs: (256, 256) int64, rows truth, columns prediction.

    Args:
        truth: uint8 labels of any shape.
        prediction: uint8 labels of the same shape.
        outside: voxels left out by cropping, known to be background in both.
    """
    assert truth.shape == prediction.shape, (truth.shape, prediction.shape)
    assert truth.dtype == prediction.dtype == np.uint8, (truth.dtype, prediction.dtype)
    # plane by plane, as temporary arrays then stay in the cache; background, most of a scan, is only counted
    planes = [(truth, prediction)] if truth.ndim < 2 else list(zip(truth, prediction, strict=True))
    codes = [np.zeros(0, np.uint16)]
    for one, other in planes:
        labelled = (one | other) != 0
        code = one[labelled].astype(np.uint16)
        code <<= 8
        code |= other[labelled]
        codes.append(code)
    every = np.concatenate(codes)
    table = np.bincount(every, minlength=65536).reshape(256, 256).astype(np.int64)
    table[0, 0] += truth.size - every.size + outside
    return table


def region_counts(joint: np.ndarray, labels: Iterable[int], field: str = WHOLE_ARRAY) -> Counts:
    """The four counts of a union of labels, out of ``joint_counts``' table."""
    inside = np.zeros(256, bool)
    inside[list(labels)] = True
    total, truth, prediction = int(joint.sum()), int(joint[inside].sum()), int(joint[:, inside].sum())
    tp = int(joint[np.ix_(inside, inside)].sum())
    return Counts(tp, prediction - tp, truth - tp, total - truth - prediction + tp, field)


def mask_counts(truth: np.ndarray, prediction: np.ndarray, field: str = WHOLE_ARRAY) -> Counts:
    """The four counts of two boolean masks of one shape."""
    assert truth.shape == prediction.shape, (truth.shape, prediction.shape)
    tp, n_truth, n_prediction = (int(np.count_nonzero(m)) for m in (truth & prediction, truth, prediction))
    return Counts(tp, n_prediction - tp, n_truth - tp, truth.size - n_truth - n_prediction + tp, field)


def ratio(part: Any, whole: Any) -> Any:
    """``part / whole``, NaN where the whole is 0; numbers or arrays."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    out = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=out, where=whole != 0)
    return out if out.ndim else float(out)


def dice(c: Counts) -> Any:
    """Sørensen-Dice: 2 TP / (2 TP + FP + FN)."""
    return ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def iou(c: Counts) -> Any:
    """Intersection over union (Jaccard): TP / (TP + FP + FN)."""
    return ratio(c.tp, c.tp + c.fp + c.fn)


def precision(c: Counts) -> Any:
    """Positive predictive value: TP / (TP + FP)."""
    return ratio(c.tp, c.tp + c.fp)


def sensitivity(c: Counts) -> Any:
    """Sensitivity, also called recall: TP / (TP + FN)."""
    return ratio(c.tp, c.tp + c.fn)


def specificity(c: Counts) -> Any:
    """TN / (TN + FP): depends on the field of view."""
    return ratio(c.tn, c.tn + c.fp)


def accuracy(c: Counts) -> Any:
    """(TP + TN) / all: depends on the field of view and is near 1 for any small region."""
    return ratio(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn)


def balanced_accuracy(c: Counts) -> Any:
    """The mean of sensitivity and specificity."""
    return (sensitivity(c) + specificity(c)) / 2


def mcc(c: Counts) -> Any:
    """Matthews correlation coefficient, NaN where a margin is empty.

    (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)); the root is taken factor by factor, as the product of four
    voxel counts leaves 64-bit integers.
    """
    tp, fp, fn, tn = (np.asarray(n, np.float64) for n in (c.tp, c.fp, c.fn, c.tn))
    return ratio(tp * tn - fp * fn, np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn))


OVERLAP: dict[str, Callable[[Counts], Any]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "mcc": mcc,
}


def overlap_metrics(c: Counts) -> dict[str, Any]:
    """All of ``OVERLAP`` by name."""
    return {name: metric(c) for name, metric in OVERLAP.items()}


# why a metric of OVERLAP can be undefined, for the reader of a null
UNDEFINED = {
    "dice": "truth and prediction are both empty",
    "iou": "truth and prediction are both empty",
    "precision": "the prediction is empty",
    "sensitivity": "the truth is empty",
    "specificity": "the truth fills the array",
    "accuracy": "there are no voxels",
    "balanced_accuracy": "the truth is empty or fills the array",
    "mcc": "truth or prediction is empty or fills the array",
}
