"""Tiles: where windows of patch size lie on a volume, and how much each voxel of a window counts.

Comes in: shapes. Goes out: start corners that cover every voxel, and a weight map of patch size. It knows no image, no
network and no device (NumPy only), so that memory can be planned before anything is loaded.
"""

from __future__ import annotations

from itertools import product
from math import ceil

import numpy as np

from hilum.errors import UsageError

Shape3 = tuple[int, int, int]

# Below this share of the centre's weight a voxel's vote is no better than its neighbours' rounding errors, and half
# precision could not hold it; the Gaussian would fall to 4e-11 in the corners.
LOWEST_WEIGHT = 1e-4


def axis_starts(length: int, patch: int, overlap: float) -> list[int]:
    """Starts of windows along one axis, evenly spread, ascending, the last one flush with the end.

    As in nnU-Net v2's ``compute_steps_for_sliding_window``: as many windows as a step of ``patch * (1 - overlap)``
    needs, then spread evenly. An axis shorter than the window gets one window at 0: the caller pads.
    """
    room = length - patch
    if room <= 0:
        return [0]
    # a window must not step by less than a voxel, whatever the overlap
    count = ceil(room / max(1.0, patch * (1.0 - overlap))) + 1
    return [round(room * i / (count - 1)) for i in range(count)]


def tile_starts(shape: Shape3, patch: Shape3, overlap: float) -> list[Shape3]:
    """Start corners of windows that together cover a volume.

    Args:
        shape: the volume's (D, H, W).
        patch: the window's (D, H, W).
        overlap: least share of a window that its neighbour covers too, 0 (inside) to 1 (outside); 0.5 is usual.

    Returns:
        Corners (z, y, x), ordered by z, then y, then x, so that the part of the volume above a corner's z is finished
        when that corner's turn comes.

    Raises:
        UsageError: an overlap outside [0, 1).
    """
    assert len(shape) == len(patch) == 3 and min(*shape, *patch) >= 1, (shape, patch)
    check_overlap(overlap)
    z, y, x = (axis_starts(n, p, overlap) for n, p in zip(shape, patch, strict=True))
    return list(product(z, y, x))


def check_overlap(overlap: float) -> None:
    """Raise UsageError unless the overlap lies in [0, 1)."""
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap {overlap:g}", wanted="a share of the patch from 0 (none) to below 1, usually 0.5")


def window_weights(patch: Shape3, kind: str) -> np.ndarray:
    """(D, H, W) float32 weights of a window's voxels, highest value 1, nowhere 0.

    Args:
        patch: (D, H, W).
        kind: "gaussian" (``gaussian_weights``), "constant", or "nnunet": the Gaussian that nnU-Net v2 computes, whose
            centre is the voxel ``n // 2``, in half precision with its smallest number in the corners.
    """
    if kind == "gaussian":
        return gaussian_weights(patch)
    if kind == "constant":
        return np.ones(patch, np.float32)
    assert kind == "nnunet", kind
    z, y, x = (_nnunet_line(n) for n in patch)
    weights = np.asarray(10 * (z[:, None, None] * y[:, None] * x), np.float16)
    weights[weights == 0] = weights[weights > 0].min()
    return np.asarray(weights, np.float32) / 10


def _nnunet_line(n: int) -> np.ndarray:
    """A Gaussian of deviation n / 8 about ``n // 2``, cut where SciPy's filter cuts it (4 deviations)."""
    place = np.arange(n) - n // 2
    line = np.exp(-0.5 * (place / (n / 8)) ** 2)
    line[np.abs(place) > int(4.0 * n / 8 + 0.5)] = 0
    return line


def gaussian_weights(patch: Shape3) -> np.ndarray:
    """(D, H, W) float32 weights of a window's voxels: a Gaussian about the centre, highest value 1.

    The standard deviation is an eighth of the window along each axis (nnU-Net; Isensee et al. 2021, Nature Methods 18,
    "Gaussian importance weighting"). The map is symmetric, so that mirrored windows weigh alike, and nowhere
    below ``LOWEST_WEIGHT``.
    """
    assert len(patch) == 3 and min(patch) >= 1, patch
    z, y, x = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in patch)
    weights = z[:, None, None] * y[:, None] * x
    return np.asarray(np.clip(weights / weights.max(), LOWEST_WEIGHT, 1.0), np.float32)
