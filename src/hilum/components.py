"""Boxes, components and neighbours of label arrays.

Comes in: 3-D arrays of small integers, and label values. Goes out: boxes (three slices), numbered components, masks. It
knows neither organs nor geometry.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import cc3d
import numpy as np

Box = tuple[slice, slice, slice]


def components_of(array: np.ndarray, connectivity: Literal[6, 18, 26] = 26) -> tuple[np.ndarray, int]:
    """Connected components of equal non-zero values, numbered from 1 in the order of the array, and how many there are.

    Args:
        array: (I, J, K) boolean or unsigned integers; touching voxels of different values are different components.
        connectivity: 6, 18 or 26 neighbours.
    """
    # cc3d 4.1 expects too few components on axes of odd length and raises for masks such as [[[1, 0, 1]]]
    even = np.pad(array, [(0, n % 2) for n in array.shape])
    found, count = cc3d.connected_components(even, connectivity=connectivity, return_N=True)
    return found[tuple(slice(0, n) for n in array.shape)], int(count)


def find_components(array: np.ndarray, values: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """26-connected components of the union of these values, numbered from 1, and how many there are."""
    return components_of(np.isin(array, values) if len(values) > 1 else array == values[0])


def box_of(array: np.ndarray, values: tuple[int, ...]) -> Box | None:
    """The smallest box that holds all voxels of these values; None if there are none."""
    if not values:
        return None
    table = np.zeros(256, bool)
    table[list(values)] = True
    return nonzero_box(table[array])


def nonzero_box(array: np.ndarray) -> Box | None:
    """The smallest box that holds everything but 0, read in the order in which it lies in memory."""
    order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    laid = array.transpose(order)
    slices = np.array([bool(plane.any()) for plane in laid])
    if not slices.any():
        return None
    first, last = int(slices.argmax()), len(slices) - int(slices[::-1].argmax())
    in_plane = np.bitwise_or.reduce(laid[first:last], axis=0) != 0
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
