"""Boxes, components and neighbours of label arrays.

Comes in: 3-D arrays of small integers, and label values. Goes out: boxes (three slices), numbered components, masks. It
knows neither organs nor geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import cc3d
import numpy as np

Box = tuple[slice, slice, slice]
_LARGE = 1 << 25  # voxels from which components are found slab by slab
_SLAB = 64  # planes; even, because of cc3d


def components_of(array: np.ndarray, connectivity: Literal[6, 18, 26] = 26) -> tuple[np.ndarray, int]:
    """Connected components of equal non-zero values, numbered from 1 in the order of the array, and how many there are.

    Args:
        array: (I, J, K) boolean or unsigned integers; touching voxels of different values are different components.
        connectivity: 6, 18 or 26 neighbours.
    """
    return _in_slabs(array, connectivity) if array.size > _LARGE else _at_once(array, connectivity)


def find_components(array: np.ndarray, values: Sequence[int]) -> tuple[np.ndarray, int]:
    """26-connected components of the union of these values, numbered from 1, and how many there are."""
    table = np.zeros(256, bool)
    table[list(values)] = True
    if array.size > _LARGE and array.dtype == np.uint8:
        return _in_slabs(array, 26, table)
    return components_of(table[array] if array.dtype == np.uint8 else np.isin(array, values))


def component_sizes(components: np.ndarray, count: int) -> np.ndarray:
    """(count + 1,) voxels of every component, background first; plane by plane, because bincount widens to 64 bits."""
    sizes = np.zeros(count + 1, np.int64)
    for plane in components:
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    return sizes


def _at_once(array: np.ndarray, connectivity: Literal[6, 18, 26]) -> tuple[np.ndarray, int]:
    # cc3d 4.1 expects too few components on axes of odd length and raises for masks such as [[[1, 0, 1]]]
    even = np.pad(array, [(0, n % 2) for n in array.shape])
    found, count = cc3d.connected_components(even, connectivity=connectivity, return_N=True)
    return found[tuple(slice(0, n) for n in array.shape)], int(count)


def _in_slabs(
    array: np.ndarray, connectivity: Literal[6, 18, 26], table: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """The same numbers from slabs along the first axis, joined where they meet: twice the work, a fifth of the memory.

    The first round counts and joins, the second writes numbers as narrow as they may be.
    """

    def slab(first: int) -> tuple[np.ndarray, int]:
        part = array[first : first + _SLAB]
        return _at_once(part if table is None else table[part], connectivity)

    starts = range(0, len(array), _SLAB)
    parents, offsets, top = np.zeros(1, np.int64), [], None
    for first in starts:
        found, count = slab(first)
        offsets.append(len(parents) - 1)
        parents = np.concatenate([parents, np.arange(len(parents), len(parents) + count)])
        if top is not None:
            values = None if table is not None else (array[first - 1], array[first])
            _join(parents, top, np.where(found[0] > 0, found[0] + offsets[-1], 0), connectivity, values)
        top = np.where(found[-1] > 0, found[-1] + offsets[-1], 0)
    roots = np.array([_root(parents, number) for number in range(len(parents))])
    order, numbers = np.unique(roots, return_inverse=True)
    out = np.empty(array.shape, np.uint16 if len(order) <= 2**16 else np.uint32)
    for first, offset in zip(starts, offsets, strict=True):
        found, count = slab(first)
        lookup = np.concatenate([[0], numbers[offset + 1 : offset + 1 + count]]).astype(out.dtype)
        out[first : first + _SLAB] = lookup[found]
    return out, len(order) - 1


def _join(
    parents: np.ndarray,
    below: np.ndarray,
    above: np.ndarray,
    connectivity: int,
    values: tuple[np.ndarray, np.ndarray] | None,
) -> None:
    """Note which components of two planes above one another are one."""
    most = {6: 0, 18: 1, 26: 2}[connectivity]  # steps in plane that a neighbour may be away
    for dy, dx in product((-1, 0, 1), repeat=2):
        if abs(dy) + abs(dx) > most:
            continue
        (here_y, there_y), (here_x, there_x) = (
            (slice(max(0, d), n + min(0, d)), slice(max(0, -d), n + min(0, -d)))
            for d, n in zip((dy, dx), below.shape, strict=True)
        )
        a, b = below[here_y, here_x], above[there_y, there_x]
        meet = (a > 0) & (b > 0)
        if values is not None:
            meet &= values[0][here_y, here_x] == values[1][there_y, there_x]
        for one, other in np.unique(np.stack([a[meet], b[meet]]), axis=1).T:
            low, high = sorted((_root(parents, int(one)), _root(parents, int(other))))
            parents[high] = low


def _root(parents: np.ndarray, number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = int(parents[number])
    return number


def box_of(array: np.ndarray, values: Sequence[int]) -> Box | None:
    """The smallest box that holds all voxels of these values; None if there are none."""
    if not values:
        return None
    table = np.zeros(256, bool)
    table[list(values)] = True
    return nonzero_box(array, table)


def nonzero_box(array: np.ndarray, table: np.ndarray | None = None) -> Box | None:
    """The smallest box that holds everything but 0 (or all whose entry in ``table`` is True), plane by plane."""
    order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    laid = array.transpose(order)
    in_plane = np.zeros(laid.shape[1:], bool)
    slices = np.zeros(len(laid), bool)
    for place, plane in enumerate(laid):
        if plane.any():
            there = plane != 0 if table is None else table[plane]
            in_plane |= there
            slices[place] = there.any()
    if not slices.any():
        return None
    lines = (slices, np.asarray(in_plane.any(1)), np.asarray(in_plane.any(0)))
    found = [slice(int(line.argmax()), len(line) - int(line[::-1].argmax())) for line in lines]
    a, b, c = (found[int(place)] for place in np.argsort(order))
    return a, b, c


def wider(box: Box, shape: tuple[int, ...]) -> Box:
    """The box and one voxel more on every side, where there is one."""
    a, b, c = (slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, shape, strict=True))
    return a, b, c


def dilated(mask: np.ndarray) -> np.ndarray:
    """The mask and everything in its 26-neighbourhood: one axis after the other."""
    for axis in range(3):
        line = np.moveaxis(mask, axis, 0)
        wide = line.copy()
        wide[1:] |= line[:-1]
        wide[:-1] |= line[1:]
        mask = np.moveaxis(wide, 0, axis)
    return mask


def centres_along_w(components: np.ndarray, count: int) -> np.ndarray:
    """(count + 1,) mean index along the last axis (left-right in SPL) of every component."""
    voxels, moments = np.zeros(count + 1), np.zeros(count + 1)
    for w in range(components.shape[2]):
        here = np.bincount(components[:, :, w].ravel(), minlength=count + 1)
        voxels += here
        moments += here * w
    return moments / np.maximum(voxels, 1)


def neighbour_slices(shape: tuple[int, ...]) -> list[tuple[Box, Box]]:
    """For each of the 26 neighbours: where the neighbours are, and where the voxels that have them."""
    pairs = []
    for shift in product((-1, 0, 1), repeat=3):
        if any(shift):
            there = tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(shift, shape, strict=True))
            here = tuple(slice(max(0, -s), n + min(0, -s)) for s, n in zip(shift, shape, strict=True))
            pairs.append((there, here))
    return pairs  # type: ignore[return-value]
