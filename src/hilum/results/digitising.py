"""How far the voxel grid alone can bend a number.

Comes in: a lesion's sizes and the spacing. Goes out: standard deviations in mm and mL, and the smallest change between
two scans that the grids alone do not explain. People and models vary more than grids do; this is the floor.

Long axis. Each end lies anywhere within a voxel of the slice, evenly: a standard deviation of spacing / sqrt(12) each.
And the widest section lies up to half a slice away from the nearest slice: for a sphere of diameter d seen at a height
h, the section is sqrt(d^2 - 4 h^2) wide. Volume. Slices of thickness t through an ellipsoid begin at any height
(Cavalieri's estimator): its spread over all offsets is computed from the ellipsoid's section areas. In the slice the
border is a staircase on either side, whose errors average out over its length: spacing / sqrt(12) for each of the
perimeter / spacing steps. Two scans differ beyond chance (95 %) by more than 1.96 times the root of both variances.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_OFFSETS = 48


def long_axis_sd_mm(long_axis_mm: float, spacing_mm: Sequence[float]) -> float:
    """Standard deviation of a long axis by where the grid lies; ``spacing_mm`` is D, H, W of the axial slices."""
    thick, in_plane = spacing_mm[0], math.sqrt(spacing_mm[1] * spacing_mm[2])
    ends = in_plane * math.sqrt(2 / 12)
    heights = (np.arange(_OFFSETS) + 0.5) / _OFFSETS * thick / 2
    width = np.sqrt(np.maximum(long_axis_mm**2 - 4 * heights**2, 0.0))
    return float(math.hypot(ends, width.std()))


def volume_sd_ml(volume_ml: float, long_axis_mm: float, short_axis_mm: float, spacing_mm: Sequence[float]) -> float:
    """Standard deviation of a volume by where the slices and voxels lie."""
    thick, in_plane = spacing_mm[0], math.sqrt(spacing_mm[1] * spacing_mm[2])
    area = math.pi / 4 * max(long_axis_mm, in_plane) * max(short_axis_mm, in_plane)
    height = max(1.5 * 1000 * volume_ml / area, 0.1)  # of the ellipsoid of that volume and widest section
    offsets = (np.arange(_OFFSETS) + 0.5) / _OFFSETS
    count = math.ceil(height / 2 / thick) + 1
    z = (np.arange(-count, count + 1)[:, None] + offsets) * thick
    sums = np.maximum(1 - (2 * z / height) ** 2, 0.0).sum(axis=0) * thick * area
    perimeter = math.pi * (max(long_axis_mm, in_plane) + max(short_axis_mm, in_plane)) / 2
    slices = max(1.0, height / thick)
    steps = max(1.0, perimeter / in_plane * slices * 0.7)  # the mean section is shorter than the widest
    stairs = in_plane / math.sqrt(12) * in_plane * thick * math.sqrt(steps)
    return float(math.hypot(sums.std(), stairs) / 1000)


def smallest_change(
    before: Mapping[str, Any], now: Mapping[str, Any], spacing_before: Sequence[float], spacing_now: Sequence[float]
) -> tuple[float, float]:
    """The changes of long axis (mm) and volume (mL) that the two grids explain by chance, at 95 %."""
    axis = [long_axis_sd_mm(x["long_axis_mm"], s) for x, s in ((before, spacing_before), (now, spacing_now))]
    volume = [
        volume_sd_ml(x["volume_ml"], x["long_axis_mm"], x["short_axis_mm"], s)
        for x, s in ((before, spacing_before), (now, spacing_now))
    ]
    return 1.96 * math.hypot(*axis), 1.96 * math.hypot(*volume)
