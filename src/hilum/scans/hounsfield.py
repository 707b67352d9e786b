"""Whether voxels can be Hounsfield units, and the smallest number type that holds them.

Comes in: a Volume as a reader made it. Goes out: the same Volume with int16 (or float32) voxels, or an error that says
why this is no CT. It knows no file formats.
"""

from __future__ import annotations

import numpy as np

from hilum.errors import GeometryError, ScanError
from hilum.volume import Volume

_SMALLEST_SPAN = 100  # HU: noise alone spans more than that in a CT; fractions and z-scores span less
_CHUNK = 1 << 18
_SPACINGS_MM = (0.01, 100.0)  # micro-CT to topogram; outside, the header is in metres or micrometres


def as_ct(volume: Volume) -> Volume:
    """The scan as int16 if its values are whole numbers that fit, else float32, checked to be HU.

    Raises:
        ScanError: NaN or infinite voxels, or values that cannot be HU (see ``check_hu``).
        GeometryError: spacings that no CT has.
    """
    small, large = min(volume.spacing_mm), max(volume.spacing_mm)
    if small < _SPACINGS_MM[0] or large > _SPACINGS_MM[1]:
        raise GeometryError(
            f"the spacing is {'x'.join(f'{s:.4g}' for s in volume.spacing_mm)} mm",
            where=volume.source or None,
            wanted=f"{_SPACINGS_MM[0]} to {_SPACINGS_MM[1]:.0f} mm",
            fix="the header may be in another unit: correct it",
        )
    low, high = _ends(volume)
    check_hu(volume, low, high)
    array = volume.array
    if array.dtype == np.int16:
        return volume
    if array.dtype.kind in "iu":
        fits = low >= -32768 and high <= 32767
        return volume.with_array(array.astype(np.int16 if fits else np.float32, order="K"))
    if low >= -32768 and high <= 32767:
        whole = _as_whole(array)
        if whole is not None:
            return volume.with_array(whole)
    return volume.with_array(array.astype(np.float32, order="K", copy=False))


def check_hu(volume: Volume, low: float | None = None, high: float | None = None) -> None:
    """Refuse what cannot be CT in HU: label maps, masks, photographs, MR, normalised images.

    CT of a body has air or fat and so values below 0, and noise that spans more than 100 HU. A label map, an 8-bit
    picture and MR start at 0; probabilities and normalised images span little.

    Args:
        volume: the scan.
        low: its smallest value, if known already.
        high: its largest.

    Raises:
        ScanError: saying which of these it looks like.
    """
    if low is None or high is None:
        low, high = _ends(volume)
    wanted = "CT in Hounsfield units (air near -1000, water 0)"
    where = volume.source or None
    span = f"values from {low:.6g} to {high:.6g}"
    if low == high:
        raise ScanError(f"every voxel is {low:.6g}", where=where, wanted=wanted, fix="check how it was exported")
    if low >= -10 and high <= 255 and _distinct_integers(volume.array, 64):
        raise ScanError(
            f"looks like a label map ({span}, few distinct integers)",
            where=where,
            wanted=wanted,
            fix="give the scan that the labels belong to",
        )
    if high - low < _SMALLEST_SPAN:
        raise ScanError(f"{span} look normalised", where=where, wanted=wanted, fix="give the scan before normalisation")
    if low >= 0:
        raise ScanError(
            f"{span}, none below 0, so it is no CT or its intercept was lost",
            where=where,
            wanted=wanted,
            fix="export it again with the rescale intercept applied",
        )


def _ends(volume: Volume) -> tuple[float, float]:
    """Smallest and largest value; raises ScanError on NaN and infinity."""
    array = volume.array
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise ScanError(
            f"{count} of {array.size} voxels are NaN or infinite",
            where=volume.source or None,
            wanted="finite HU everywhere",
            fix="fill them with air (-1024) if they lie outside the field of view",
        )
    return low, high


def _distinct_integers(array: np.ndarray, most: int) -> bool:
    """Whether all values are integers in [-10, 255] and at most ``most`` distinct ones occur."""
    flat = array.ravel(order="K")
    if array.dtype.kind == "f" and not (flat == np.rint(flat)).all():
        return False
    counts = np.zeros(266, np.int64)
    for start in range(0, flat.size, _CHUNK):  # bincount turns what it is given into 64-bit numbers
        counts += np.bincount(flat[start : start + _CHUNK].astype(np.int16) + 10, minlength=266)
    return int(np.count_nonzero(counts)) <= most


def _as_whole(array: np.ndarray) -> np.ndarray | None:
    """int16 if every value is a whole number, else None; looks at a few voxels first, most fractions end there."""
    some = array[:: max(1, array.shape[0] // 4), :: max(1, array.shape[1] // 16)]
    if not (some == np.rint(some)).all():
        return None
    whole = array.astype(np.int16, order="K")
    return whole if np.array_equal(whole, array) else None
