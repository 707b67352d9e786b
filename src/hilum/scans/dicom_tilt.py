"""Straightening a stack from a tilted gantry.

Comes in: HU and the Stack they lie on, whose slices shift sideways. Goes out: HU on an orthogonal grid. It knows no
files.

With a tilted gantry the table moves at an angle to the slices' normal, so each slice is shifted in its own plane
against the one before. Shifting it back is one linear interpolation along rows and one along columns, the same for
all its pixels; no slice is mixed with its neighbours. The grid grows sideways so that no voxel is lost; the rest
is air.
"""

from __future__ import annotations

import numpy as np

from hilum.scans.dicom_geometry import Stack
from hilum.volume import Grid

AIR_HU = -1024


def straighten(hu: np.ndarray, stack: Stack) -> tuple[np.ndarray, Grid]:
    """Resample (K, rows, columns) HU of a tilted stack.

    Returns:
        The array (K, rows', columns') and its grid, indexed (column, row, slice) like the stack's.
    """
    count, _rows, _columns = hu.shape
    spacing_columns, spacing_rows, _ = stack.grid.spacing_mm
    shift_columns = np.arange(count) * stack.drift_mm[0] / spacing_columns
    shift_rows = np.arange(count) * stack.drift_mm[1] / spacing_rows
    before_rows, after_rows = _margins(shift_rows)
    before_columns, after_columns = _margins(shift_columns)

    wide = np.pad(hu, ((0, 0), (before_rows, after_rows), (before_columns, after_columns)), constant_values=AIR_HU)
    out = np.empty_like(wide)
    for k in range(count):
        # the new pixel p lies at p - shift in the slice's own pixels
        moved = _shifted(_shifted(wide[k].astype(np.float32), shift_rows[k], axis=0), shift_columns[k], axis=1)
        out[k] = np.rint(moved) if out.dtype.kind == "i" else moved

    affine = np.array(stack.grid.affine)
    row, column = affine[:3, 0] / spacing_columns, affine[:3, 1] / spacing_rows
    affine[:3, 2] -= row * stack.drift_mm[0] + column * stack.drift_mm[1]
    affine[:3, 3] -= affine[:3, 0] * before_columns + affine[:3, 1] * before_rows
    return out, Grid((out.shape[2], out.shape[1], count), affine)


def _margins(shifts: np.ndarray) -> tuple[int, int]:
    """Pixels to add before and after so that every shifted slice fits."""
    return int(np.ceil(max(0.0, -shifts.min()) - 1e-6)), int(np.ceil(max(0.0, shifts.max()) - 1e-6))


def _shifted(image: np.ndarray, shift: float, axis: int) -> np.ndarray:
    """``out[p] = image[p - shift]`` by linear interpolation; air from outside."""
    whole = int(np.floor(shift))
    share = np.float32(shift - whole)
    result = _rolled(image, whole, axis)
    if share > 1e-6:
        result = result * (1 - share) + _rolled(image, whole + 1, axis) * share
    return result


def _rolled(image: np.ndarray, by: int, axis: int) -> np.ndarray:
    """Moved by whole pixels, air filled in."""
    image = image.swapaxes(0, axis)
    out = np.full_like(image, AIR_HU)
    size = image.shape[0]
    if abs(by) < size:
        out[max(0, by) : size + min(0, by)] = image[max(0, -by) : size - max(0, by)]
    return out.swapaxes(0, axis)
