"""How much surface a 2 x 2 x 2 neighbourhood of voxels holds: the area table of DeepMind's surface distance.

Comes in: a mask. Goes out: the corners between voxels at which the surface passes (surfels) and the area of each, mm2.

Each corner between voxels sees eight voxels, hence one of 256 patterns. DeepMind's surface-distance (Nikolov et al.
2018, arXiv 1809.04430; ``lookup_tables.py``, commit 57c1e2c) lists for each pattern the normals of the triangles that
marching cubes (Lorensen and Cline 1987) lays into it; a normal's length is the triangle's area. Only the sizes of the
components matter for areas. That table is unchanged by turning, mirroring and by swapping inside and outside, so
thirteen patterns say it all and the other 243 follow (all inside or all outside hold none). The numbers must stay as
they are even where one would triangulate otherwise (some patterns count two opposite faces): official scores are made
of them.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product

import numpy as np

# voxel (a, b, c) of the neighbourhood carries this bit of the pattern
_BITS = {(a, b, c): 1 << (7 - 4 * a - 2 * b - c) for a, b, c in product((0, 1), repeat=3)}

# pattern -> normals, each as the sizes of its three components in eighths of a voxel face
_NORMALS = {
    1: ("111",),
    3: ("220", "220"),
    6: ("111", "111"),
    7: ("111", "222", "400"),
    15: ("400", "400"),
    22: ("111", "111", "111"),
    23: ("111", "111", "222", "222"),
    24: ("111", "111"),
    25: ("022", "022", "111"),
    27: ("022", "111", "202", "333"),
    30: ("111", "111", "222", "400"),
    60: ("220", "220", "220", "220"),
    105: ("111", "111", "111", "111"),
}


@lru_cache(maxsize=1)
def normal_table() -> np.ndarray:
    """(256, 4, 3) float64: sizes of the normals' components by pattern, in voxel faces; unused rows are 0."""
    table = np.zeros((256, 4, 3))
    for pattern, normals in _NORMALS.items():
        inside = [voxel for voxel, bit in _BITS.items() if pattern & bit]
        for axes in permutations(range(3)):
            turned = np.zeros((4, 3))
            turned[: len(normals)] = [[int(normal[axis]) / 8 for axis in axes] for normal in normals]
            for flips in product((0, 1), repeat=3):
                code = sum(_BITS[_turn(voxel, axes, flips)] for voxel in inside)
                table[code] = table[255 - code] = turned
    table.setflags(write=False)
    return table


def _turn(voxel: tuple[int, int, int], axes: tuple[int, ...], flips: tuple[int, ...]) -> tuple[int, int, int]:
    a, b, c = (voxel[axis] ^ flip for axis, flip in zip(axes, flips, strict=True))
    return a, b, c


def area_table(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """(256,) float64: surface area in mm2 of each pattern on voxels of this spacing.

    The face across axis 0 measures s1 x s2, and so on; a normal's length is taken after each component was scaled so.
    """
    s0, s1, s2 = (float(s) for s in spacing_mm)
    faces = np.array([s1 * s2, s0 * s2, s0 * s1])
    areas: np.ndarray = np.sqrt(((normal_table() * faces) ** 2).sum(axis=2)).sum(axis=1)
    return areas


def surfels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners at which the surface passes, and their patterns; beyond the array counts as outside.

    Only lines of voxels along the last axis that hold any of the mask are looked at, so that specks scattered over a
    whole scan cost little.

    Args:
        mask: boolean, 3-D.

    Returns:
        (N,) indices into the flattened grid of corners, which has one more than ``mask`` on each axis, ascending; and
        (N,) uint8 patterns.
    """
    lines, number = voxel_lines(mask)
    pairs = np.zeros((len(lines), mask.shape[2] + 1), np.uint8)
    pairs[:, :-1] = lines
    pairs[:, 1:] |= lines.view(np.uint8) << 1
    used = number > 0
    rows, columns = np.nonzero(used[:-1, :-1] | used[:-1, 1:] | used[1:, :-1] | used[1:, 1:])
    codes = pairs[number[rows, columns]]
    for before, after in ((0, 1), (1, 0), (1, 1)):
        codes <<= 2
        codes |= pairs[number[rows + before, columns + after]]
    width = mask.shape[2] + 1
    codes = codes.ravel()
    passed = np.flatnonzero(codes + np.uint8(1) > 1)  # 255 wraps to 0: neither all inside nor all outside
    line, place = np.divmod(passed, width)
    index = (rows[line] * (mask.shape[1] + 1) + columns[line]) * width + place
    return index, codes[passed]


def voxel_lines(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lines of voxels along the last axis that hold any of the mask, and which line is where.

    Returns:
        (lines + 1, length) boolean, an empty line first; and (shape[0] + 2, shape[1] + 2) numbers of the lines with a
        border of empty ones around.
    """
    assert mask.dtype == np.bool_ and mask.ndim == 3, (mask.dtype, mask.ndim)
    used = mask.any(axis=2)
    number = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), np.int64)
    number[1:-1, 1:-1][used] = np.arange(1, np.count_nonzero(used) + 1)
    lines = np.zeros((int(number.max()) + 1, mask.shape[2]), bool)
    lines[1:] = mask[used]
    return lines, number
