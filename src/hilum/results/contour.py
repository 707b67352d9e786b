"""The outline that an organ would have without its lesions.

Comes in: masks of an organ's own tissue and of its lesions, and their grid. Goes out: a filled, convex mask. It knows
no labels and computes no score.

Why not simply the convex hull of the tissue. A mass that bulges out often carries a skin of labelled tissue: stretched
parenchyma, or one voxel that the annotator left. The hull spans from there to the organ, and a mass that hangs on the
kidney like a balloon would be called wholly inside it. So a rim is taken away first: tissue within two ``RIM_MM`` of a
lesion where no ball of radius ``RIM_MM`` fits in (an opening by that ball; Serra, Image Analysis and Mathematical
Morphology, 1982), nor within ``EDGE_MM`` of such a ball: the sharp edge of a bed is no rim. The outline is the
convex hull of what is left. If nothing is left, it is that of all tissue.

That ``RIM_MM`` is 3, so that a rim is thinner than 6 mm, is our judgement: thinner than a healthy renal cortex, thicker
than one slice of most scans. The hull spans the bed of a lesion flat, and a rim leaves a little. Of balls of
radius 14 mm, half in the border of an ellipsoid the size of a kidney, with skins of 0 to 4 mm and slices of 1.6 and 5
mm, 7 percentage points too little to 12 too much stand out (4 to 9 by the plain hull where there is no skin, most
towards the poles); of what lies wholly inside, nothing.
"""

from __future__ import annotations

import edt
import numpy as np

from hilum.components import Box
from hilum.results.distances import within
from hilum.results.shape import hull_of
from hilum.volume import Grid

RIM_MM = 3.0
EDGE_MM = 2.0  # how far beyond the balls that fit in tissue still counts as the organ's own
_FINE_MM = 1.0  # steps in which thickness is told, so that a skin of one thick slice is as thin as it is


def contour_of(own_DHW: np.ndarray, lesions_DHW: np.ndarray, grid: Grid) -> np.ndarray:
    """The convex outline of an organ's own tissue without the rims of its lesions, filled: (D, H, W) bool.

    Args:
        own_DHW: the organ without its lesions.
        lesions_DHW: all lesions of it.
        grid: of both; on a sheared one thickness is told along its axes.
    """
    kept = own_DHW & ~rims_of(own_DHW, lesions_DHW, grid)
    return hull_of(kept if kept.any() else own_DHW)


def rims_of(own_DHW: np.ndarray, lesions_DHW: np.ndarray, grid: Grid) -> np.ndarray:
    """Own tissue near lesions that is no thicker than a rim, edges of beds left out: (D, H, W) bool."""
    rims = np.zeros(own_DHW.shape, bool)
    if not lesions_DHW.any():
        return rims
    box = _around(lesions_DHW, grid, 5 * RIM_MM)
    near = within(lesions_DHW[box], grid.cropped([s.start for s in box], [s.stop for s in box]), 2 * RIM_MM)
    rims[box] = near & own_DHW[box] & ~_opened(own_DHW[box], grid.spacing_mm)
    return rims


def _around(mask_DHW: np.ndarray, grid: Grid, margin_mm: float) -> Box:
    """The mask's box with a margin, cut at the array's border."""
    parts = []
    for axis in range(3):
        hit = np.flatnonzero(mask_DHW.any(axis=tuple({0, 1, 2} - {axis})))
        reach = int(np.ceil(margin_mm / grid.spacing_mm[axis]))
        parts.append(slice(max(0, int(hit[0]) - reach), min(mask_DHW.shape[axis], int(hit[-1]) + 1 + reach)))
    return parts[0], parts[1], parts[2]


def _opened(mask_DHW: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The voxels at least half of which lie within ``EDGE_MM`` of a ball of radius ``RIM_MM`` inside the mask."""
    times = [int(np.ceil(s / _FINE_MM)) for s in spacing_mm]
    fine = mask_DHW
    for axis, n in enumerate(times):
        fine = np.repeat(fine, n, axis)
    steps_mm = tuple(s / n for s, n in zip(spacing_mm, times, strict=True))
    # what lies beyond the cut is not known to be outside: there the tissue goes on
    core = edt.edt(fine, anisotropy=steps_mm) > RIM_MM
    if not core.any():
        return np.zeros_like(mask_DHW)
    fine = edt.edt(~core, anisotropy=steps_mm) <= RIM_MM + EDGE_MM
    blocks = [x for pair in zip(mask_DHW.shape, times, strict=True) for x in pair]
    share: np.ndarray = fine.reshape(blocks).mean(axis=(1, 3, 5))
    return share >= 0.5
