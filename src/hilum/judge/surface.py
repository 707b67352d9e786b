"""Distances between the surfaces of two masks, by the definitions that challenges and papers use.

Comes in: two boolean masks of one shape, truth before prediction, and a spacing in mm in array-axis order. Goes out:
the distances themselves, computed once, from which every number is read off. No files, no labels, no empty policies:
where one mask is empty its partner's distances are infinite, where both are empty every number is NaN.

Two surface models, never to be mixed:

* ``surfel_distances``: DeepMind's surface-distance. Surface elements sit at voxel *corners* and carry an area; NSD
  (surface Dice), robust Hausdorff and average distances are weighted by it. KiTS21, KiTS23 and MSD use it.
* ``voxel_distances``: MedPy and the LiTS scorer. Surface is the set of voxels that erosion takes away, each counting
  as one, distances run between voxel *centres*.

HD95 is the area-weighted share in each direction and then the larger in the first model, the percentile of all
distances together in the second: name the one you report. Both take the distance from whole index differences, as an
exact Euclidean transform does (``nearest``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hilum.judge.nearest import Spacing, both_ways
from hilum.judge.surfels import area_table, surfels, voxel_lines


@dataclass(frozen=True)
class SurfelDistances:
    """Each surface element's distance to the other surface, and its area.

    Attributes:
        truth_mm: (N,) distances of the truth's elements to the prediction; inf if that is empty.
        truth_mm2: (N,) their areas.
        prediction_mm: (M,) distances of the prediction's elements to the truth.
        prediction_mm2: (M,) their areas.
    """

    truth_mm: np.ndarray
    truth_mm2: np.ndarray
    prediction_mm: np.ndarray
    prediction_mm2: np.ndarray

    def nsd(self, tolerance_mm: float) -> float:
        """Surface Dice: the share of both surfaces that lies within the tolerance (<=) of the other; 0 to 1."""
        near = self.truth_mm2[self.truth_mm <= tolerance_mm].sum()
        near += self.prediction_mm2[self.prediction_mm <= tolerance_mm].sum()
        whole = self.truth_mm2.sum() + self.prediction_mm2.sum()
        return float(near / whole) if whole else float("nan")

    def robust_hausdorff_mm(self, percent: float) -> float:
        """The distance within which ``percent`` of a surface's area lies, the larger of both directions."""
        return max(
            (_share_mm(*side, percent) for side in self._sorted), key=lambda mm: (mm == mm, mm)
        )  # a side without surface says nothing

    @cached_property
    def _sorted(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Distances, ascending, and the share of the area up to each: of the truth, of the prediction."""
        sides = []
        for mm, mm2 in ((self.truth_mm, self.truth_mm2), (self.prediction_mm, self.prediction_mm2)):
            apart = np.flatnonzero(mm)  # shared elements come first, and are many
            order = np.concatenate([np.flatnonzero(mm == 0), apart[np.argsort(mm[apart], kind="stable")]])
            sides.append((mm[order], np.cumsum(mm2[order]) / mm2.sum()))
        return sides

    def average_mm(self) -> tuple[float, float]:
        """Area-weighted mean distance: truth to prediction, prediction to truth."""
        return _weighted_mm(self.truth_mm, self.truth_mm2), _weighted_mm(self.prediction_mm, self.prediction_mm2)

    def areas_mm2(self) -> tuple[float, float]:
        """Surface area of truth and prediction."""
        return float(self.truth_mm2.sum()), float(self.prediction_mm2.sum())


@dataclass(frozen=True)
class VoxelDistances:
    """Each surface voxel's distance to the other mask's surface voxels; inf if there are none."""

    truth_mm: np.ndarray
    prediction_mm: np.ndarray

    def hausdorff_mm(self, percent: float = 100.0) -> float:
        """The percentile (linear, MedPy's hd95) of both directions' distances together; 100 is the Hausdorff one."""
        every = np.concatenate([self.truth_mm, self.prediction_mm])
        if not every.size or not np.isfinite(every).all():
            return float("inf") if every.size else float("nan")
        return float(np.percentile(every, percent)) if percent < 100 else float(every.max())

    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over all voxels of both surfaces (LiTS, and MedPy since 0.5)."""
        return _mean(np.concatenate([self.truth_mm, self.prediction_mm]))

    def rmsd_mm(self) -> float:
        """Root of the mean squared distance over all voxels of both surfaces."""
        return float(np.sqrt(_mean(np.concatenate([self.truth_mm, self.prediction_mm]) ** 2)))


def surfel_distances(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Spacing,
    threads: int = 1,
    up_to_mm: float = np.inf,
) -> SurfelDistances:
    """DeepMind's surface distances; crop to the union box before, the result is the same.

    Args:
        truth: boolean, 3-D.
        prediction: boolean, same shape.
        spacing_mm: along each array axis.
        threads: for the nearest-neighbour queries; -1 takes all.
        up_to_mm: larger distances may come out infinite: enough for NSD at tolerances up to this, and much faster.
    """
    areas = area_table(spacing_mm)
    (truth_index, truth_codes), (prediction_index, prediction_codes) = surfels(truth), surfels(prediction)
    corners = tuple(n + 1 for n in truth.shape)
    truth_mm, prediction_mm = both_ways(truth_index, prediction_index, corners, spacing_mm, threads, up_to_mm)
    return SurfelDistances(truth_mm, areas[truth_codes], prediction_mm, areas[prediction_codes])


def voxel_distances(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing, connectivity: int = 1, threads: int = 1
) -> VoxelDistances:
    """Distances between surface voxels.

    Args:
        truth: boolean, 3-D.
        prediction: boolean, same shape.
        spacing_mm: along each array axis.
        connectivity: of the erosion that finds the surface: 1 is 6 neighbours (MedPy), 2 is 18 (LiTS).
        threads: for the nearest-neighbour queries; -1 takes all.
    """
    truth_index, prediction_index = border_voxels(truth, connectivity), border_voxels(prediction, connectivity)
    return VoxelDistances(*both_ways(truth_index, prediction_index, truth.shape, spacing_mm, threads, np.inf))


def border_voxels(mask: np.ndarray, connectivity: int = 1) -> np.ndarray:
    """Flat indices, ascending, of the mask's voxels with a neighbour outside it; beyond the array is outside."""
    assert connectivity in (1, 2), connectivity
    lines, number = voxel_lines(mask)
    along = np.zeros_like(lines)  # voxels whose two neighbours on the line are inside too
    along[:, 1:-1] = lines[:, :-2] & lines[:, 1:-1] & lines[:, 2:]
    rows, columns = np.nonzero(number)
    inner = along[number[rows, columns]]
    beside = lines if connectivity == 1 else along
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        inner &= beside[number[rows + down, columns + across]]
    if connectivity == 2:
        for down, across in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            inner &= lines[number[rows + down, columns + across]]
    line, place = np.divmod(np.flatnonzero(lines[number[rows, columns]] & ~inner), mask.shape[2])
    index: np.ndarray = ((rows[line] - 1) * mask.shape[1] + columns[line] - 1) * mask.shape[2] + place
    return index


def _share_mm(distances_mm: np.ndarray, shares: np.ndarray, percent: float) -> float:
    if not distances_mm.size:
        return float("nan")
    return float(distances_mm[min(int(np.searchsorted(shares, percent / 100)), len(distances_mm) - 1)])


def _weighted_mm(distances_mm: np.ndarray, areas_mm2: np.ndarray) -> float:
    return float((distances_mm * areas_mm2).sum() / areas_mm2.sum()) if distances_mm.size else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
