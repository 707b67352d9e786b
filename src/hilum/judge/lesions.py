"""Lesions one by one: which were found, which were missed, which were invented, and where.

Comes in: two boolean masks of one region, truth before prediction, with their place. Goes out: counts, rates by size,
F1, panoptic quality, Dice of each lesion, and lists with places in mm and sizes in mL. Knows no challenge.

A lesion is a connected component. Two ways to be found are told apart and never mixed:

* *matched*: one predicted component overlaps it with an intersection over union above a threshold, one to one
  (Kirillov et al. 2019, arXiv 1801.00868, for panoptic quality);
* *touched* ("any"): at least one of its voxels is predicted.

A lesion's own Dice is taken against all predicted components that touch it, 0 if none does. Size is the diameter of the
sphere of the same volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from hilum.components import components_of
from hilum.judge.overlap import ratio
from hilum.volume import Grid

Neighbours = Literal[6, 18, 26]
LISTED = 100  # a noisy prediction has thousands of specks: the largest are listed, all are counted


@dataclass(frozen=True, eq=False)
class Lesions:
    """Components of both masks and how they overlap.

    Attributes:
        truth_voxels: (T,) sizes.
        prediction_voxels: (P,) sizes.
        truth_mm: (T, 3) centroids in world mm.
        prediction_mm: (P, 3) centroids in world mm.
        pairs: (N, 2) indices of a truth and a predicted lesion that share voxels.
        shared: (N,) how many voxels they share.
        voxel_ml: volume of a voxel.
    """

    truth_voxels: np.ndarray
    prediction_voxels: np.ndarray
    truth_mm: np.ndarray
    prediction_mm: np.ndarray
    pairs: np.ndarray
    shared: np.ndarray
    voxel_ml: float

    def matches(self, above_iou: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows of ``pairs`` matched one to one with an IoU above the threshold, and those IoUs.

        The best pair is taken first. From a threshold of 0.5 on there is never a choice: two components cannot both
        cover more than half of the same union.
        """
        union = self.truth_voxels[self.pairs[:, 0]] + self.prediction_voxels[self.pairs[:, 1]] - self.shared
        iou = self.shared / np.maximum(union, 1)
        taken: tuple[set[int], set[int]] = (set(), set())
        rows = []
        for row in np.argsort(-iou, kind="stable"):
            t, p = (int(i) for i in self.pairs[row])
            if iou[row] > above_iou and t not in taken[0] and p not in taken[1]:
                taken[0].add(t)
                taken[1].add(p)
                rows.append(int(row))
        return np.array(rows, int), iou[rows] if rows else np.zeros(0)

    def touched(self) -> tuple[np.ndarray, np.ndarray]:
        """(T,) and (P,) booleans: shares at least one voxel with the other side."""
        truth, prediction = np.zeros(len(self.truth_voxels), bool), np.zeros(len(self.prediction_voxels), bool)
        truth[self.pairs[:, 0]] = True
        prediction[self.pairs[:, 1]] = True
        return truth, prediction

    def dice(self) -> np.ndarray:
        """(T,) Dice of each true lesion with all predicted components that touch it."""
        inside = np.bincount(self.pairs[:, 0], self.shared, len(self.truth_voxels))
        around = np.bincount(self.pairs[:, 0], self.prediction_voxels[self.pairs[:, 1]], len(self.truth_voxels))
        values: np.ndarray = 2 * inside / (self.truth_voxels + around)
        return values


def find_lesions(truth: np.ndarray, prediction: np.ndarray, grid: Grid, connectivity: Neighbours = 26) -> Lesions:
    """Components of two masks that lie on ``grid``, in one pass each, and their overlaps in one more."""
    assert truth.shape == prediction.shape == grid.shape, (truth.shape, prediction.shape, grid.shape)
    labels, counts = zip(*(_components(mask, connectivity) for mask in (truth, prediction)), strict=True)
    both = truth & prediction
    codes = labels[0][both].astype(np.int64) * (counts[1] + 1) + labels[1][both]
    found, shared = np.unique(codes, return_counts=True)
    pairs = np.stack([found // (counts[1] + 1) - 1, found % (counts[1] + 1) - 1], axis=1)
    sizes, places = zip(*(_sizes(label, n, grid) for label, n in zip(labels, counts, strict=True)), strict=True)
    return Lesions(sizes[0], sizes[1], places[0], places[1], pairs, shared, grid.voxel_volume_mm3 / 1000)


def lesion_counts(lesions: Lesions, above_iou: float, diameters_mm: tuple[float, ...]) -> dict[str, float]:
    """Everything that adds up over cases: counts, summed IoU and Dice, and counts by size bin."""
    rows, ious = lesions.matches(above_iou)
    touched, hit = lesions.touched()
    matched = np.zeros(len(lesions.truth_voxels), bool)
    matched[lesions.pairs[rows, 0]] = True
    counts = {
        "gt": len(lesions.truth_voxels),
        "pred": len(lesions.prediction_voxels),
        "tp": len(rows),
        "iou": ious.sum(),
        "touched": touched.sum(),
        "invented": (~hit).sum(),
        "dice": lesions.dice().sum(),
    }
    diameter_mm = sphere_mm(lesions.truth_voxels * lesions.voxel_ml)
    for name, low, high in bins(diameters_mm):
        inside = (diameter_mm >= low) & (diameter_mm < high)
        counts |= {f"gt_{name}": inside.sum(), f"tp_{name}": (inside & matched).sum()}
        counts[f"touched_{name}"] = (inside & touched).sum()
    return {name: float(n) for name, n in counts.items()}


def lesion_rates(counts: dict[str, np.ndarray] | dict[str, float], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Rates from ``lesion_counts`` (or their sums over cases, elementwise); ``names`` are the size bins'."""
    gt, pred, tp, touched = (np.asarray(counts[name], float) for name in ("gt", "pred", "tp", "touched"))
    invented = np.asarray(counts["invented"], float)
    rates = {
        "lesion_precision": ratio(tp, pred),
        "lesion_sensitivity": ratio(tp, gt),
        "lesion_f1": ratio(2 * tp, gt + pred),
        "panoptic_quality": ratio(counts["iou"], (gt + pred) / 2),
        "lesion_precision_any": ratio(pred - invented, pred),
        "lesion_sensitivity_any": ratio(touched, gt),
        "lesion_f1_any": ratio(2 * touched, touched + gt + invented),
        "lesion_dice": ratio(counts["dice"], gt),
    }
    for name in names:
        rates[f"lesion_sensitivity_{name}"] = ratio(counts[f"tp_{name}"], counts[f"gt_{name}"])
        rates[f"lesion_sensitivity_any_{name}"] = ratio(counts[f"touched_{name}"], counts[f"gt_{name}"])
    return rates


def lesion_lists(lesions: Lesions) -> dict[str, list[dict[str, object]]]:
    """Found, missed and invented lesions, largest first, with centroid (world mm, RAS+), mL and equivalent diameter."""
    touched, hit = lesions.touched()
    dice = lesions.dice()
    sides = ((lesions.truth_voxels, lesions.truth_mm), (lesions.prediction_voxels, lesions.prediction_mm))

    def rows(side: int, chosen: np.ndarray) -> list[dict[str, object]]:
        voxels, places = sides[side]
        order = np.flatnonzero(chosen)
        order = order[np.argsort(-voxels[order], kind="stable")][:LISTED]
        ml = voxels * lesions.voxel_ml
        return [
            {
                "place_mm": [round(float(x), 1) for x in places[i]],
                "volume_ml": round(float(ml[i]), 4),
                "diameter_mm": round(float(sphere_mm(ml[i])), 1),
            }
            | ({"dice": round(float(dice[i]), 4)} if side == 0 and touched[i] else {})
            for i in order
        ]

    return {"found": rows(0, touched), "missed": rows(0, ~touched), "invented": rows(1, ~hit)}


def bins(diameters_mm: tuple[float, ...]) -> list[tuple[str, float, float]]:
    """Size bins between the given borders: name, from (included), to (excluded), in mm."""
    edges = [0.0, *sorted(diameters_mm), float("inf")]
    return [
        (
            f"under_{high:g}mm" if not low else f"{low:g}mm_up" if high == float("inf") else f"{low:g}_{high:g}mm",
            low,
            high,
        )
        for low, high in pairwise(edges)
    ]


def sphere_mm(volume_ml: np.ndarray) -> np.ndarray:
    """Diameter in mm of the sphere of that volume: (6 V / pi)^(1/3)."""
    diameter: np.ndarray = np.cbrt(6000 * np.asarray(volume_ml, float) / np.pi)
    return diameter


def _components(mask: np.ndarray, connectivity: Neighbours) -> tuple[np.ndarray, int]:
    if not mask.any():
        return np.zeros(mask.shape, np.uint32), 0
    return components_of(mask, connectivity)


def _sizes(labels: np.ndarray, count: int, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and centroids of components 1..count."""
    places = np.argwhere(labels)
    ids = labels[tuple(places.T)].astype(np.int64) - 1
    voxels = np.bincount(ids, minlength=count)
    sums = np.stack([np.bincount(ids, places[:, axis], count) for axis in range(3)], axis=1)
    return voxels, grid.world(sums / np.maximum(voxels, 1)[:, None])
