"""How a label map lies against its image: the same, turned, flipped, shifted, or somewhere else.

Comes in: an image and its label map as read. Goes out: at most one Finding with the plan that would put it right. Where
the two headers disagree, the voxels decide: the borders of labelled organs are edges of the image. It changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hilum.errors import GeometryError
from hilum.survey.findings import Finding
from hilum.volume import INSIDE, Volume

SNAP_MM = 0.1  # the tolerance that hilum reads pairs with (volume.require_same_grid)
SAME_MM = 0.001
DECISIVE = 1.25  # how many times stronger the border must be in one place than in the other
_MOST_PAIRS = 400_000


def placing(image: Volume, labels: Volume) -> Finding | None:
    """What is wrong with where the label map lies, or None.

    Args:
        image: HU.
        labels: integers.
    """
    if image.shape == labels.shape:
        distance = image.grid.distance_mm(labels.grid)
        if distance <= SNAP_MM:
            if distance <= SAME_MM:
                return None
            return Finding("rounding", f"the label map lies {distance:.3f} mm off its image", labels.source)
    turned = _turned(image, labels)
    if turned is not None:
        return turned
    if image.shape != labels.shape:
        return Finding(
            "shape",
            f"the image is {image.grid.describe()}, the label map {labels.grid.describe()}",
            labels.source,
            "pair the right files, or resample one onto the other",
        )
    return _decided(image, labels)


def _turned(image: Volume, labels: Volume) -> Finding | None:
    """The same box along other axes: read in one order they agree, unless the voxels say that the affine is wrong."""
    try:
        one, other = image.grid.oriented(INSIDE), labels.grid.oriented(INSIDE)
    except GeometryError:
        return None
    if one.shape != other.shape or one.distance_mm(other) > SNAP_MM:
        return None
    if image.shape == labels.shape:
        by_affines = np.ascontiguousarray(labels.oriented(image.codes).array)
        in_array, in_world = border_contrast(image, labels.array), border_contrast(image, by_affines)
        if in_array >= DECISIVE * max(in_world, 1.0):
            return _copied("flip", f"axes {image.codes} against {labels.codes}", image, labels, in_array, in_world)
    return Finding(
        "axis-order",
        f"the image runs {image.codes}, the label map {labels.codes}, over the same place",
        labels.source,
        "hilum reads both alike; --fix lists the label map as its image is",
        {"do": "reorder", "file": "labels"},
    )


def _decided(image: Volume, labels: Volume) -> Finding:
    """Equal shapes, different affines: is the array right, or the affine?"""
    in_array = border_contrast(image, labels.array)
    in_world = border_contrast(image, nearest_onto(image, labels))
    code, what = _difference(image, labels)
    if in_array >= DECISIVE * max(in_world, 1.0):
        return _copied(code, what, image, labels, in_array, in_world)
    told, numbers = _told(what, image, labels, in_array, in_world)
    if in_world >= DECISIVE * max(in_array, 1.0):
        return Finding(
            code,
            f"{told}; the affines are right and the label map lies on another grid ({numbers})",
            labels.source,
            "--fix resamples the label map (nearest voxel) onto its image's grid",
            {"do": "resample", "file": "labels"},
        )
    return Finding(
        "misplaced",
        f"{told}, and the voxels do not tell which is right ({numbers})",
        labels.source,
        "look at both in a viewer and correct one header",
    )


def _copied(code: str, what: str, image: Volume, labels: Volume, in_array: float, in_world: float) -> Finding:
    """The arrays fit voxel for voxel: the label map's affine is wrong."""
    told, numbers = _told(what, image, labels, in_array, in_world)
    return Finding(
        code,
        f"{told}; voxel for voxel they fit ({numbers})",
        labels.source,
        "--fix gives the label map its image's affine",
        {"do": "copy_affine", "file": "labels"},
    )


def _told(what: str, image: Volume, labels: Volume, in_array: float, in_world: float) -> tuple[str, str]:
    return (
        f"{what}; image {image.grid.describe()}, label map {labels.grid.describe()}",
        f"HU step at the labels' border {in_array:.0f} in array space, {in_world:.0f} by the affines",
    )


def _difference(image: Volume, labels: Volume) -> tuple[str, str]:
    """Which kind of disagreement two affines of one shape have."""
    one, other = image.affine[:3, :3], labels.affine[:3, :3]
    if not np.allclose(image.spacing_mm, labels.spacing_mm, rtol=1e-3):
        return "spacing-differs", "another spacing"
    if np.allclose(one, other, atol=1e-3 * max(image.spacing_mm)):
        offset = labels.affine[:3, 3] - image.affine[:3, 3]
        return "shift", f"shifted by {', '.join(f'{v:.1f}' for v in offset)} mm (R, A, S)"
    return "flip", f"axes {image.codes} against {labels.codes}"


def border_contrast(image: Volume, labels: np.ndarray) -> float:
    """Mean step in HU across the border of the labelled voxels, of at most a few hundred thousand pairs of neighbours.

    Only borders inside the body count (both voxels above -500 HU), so that a label map which falls into the air wins
    nothing by it.

    Args:
        image: HU.
        labels: integers on the image's array.
    """
    mask = labels != 0
    steps: list[np.ndarray] = []
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        border = np.flatnonzero(mask[tuple(ahead)] != mask[tuple(behind)])
        border = border[:: max(1, len(border) // _MOST_PAIRS)]
        places = np.unravel_index(border, mask[tuple(ahead)].shape)
        low = image.array[places].astype(np.float32)
        high = image.array[tuple(p + 1 if a == axis else p for a, p in enumerate(places))].astype(np.float32)
        inside = (low > -500) & (high > -500)
        steps.append(np.abs(high - low)[inside])
    found = np.concatenate(steps)
    return float(found.mean()) if found.size else 0.0


def nearest_onto(image: Volume, labels: Volume) -> np.ndarray:
    """(I, J, K) values of a label map at the centres of an image's voxels, 0 outside; slab by slab.

    Args:
        image: gives the grid.
        labels: integers on any grid.
    """
    result = np.zeros(image.shape, labels.array.dtype)
    way = np.linalg.inv(labels.affine) @ image.affine
    j, k = np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[2]), indexing="ij")
    top = np.array(labels.shape) - 1
    for i in range(image.shape[0]):
        at: list[Any] = [
            np.rint(way[r, 0] * i + way[r, 1] * j + way[r, 2] * k + way[r, 3]).astype(int) for r in range(3)
        ]
        inside = np.logical_and.reduce([(a >= 0) & (a <= t) for a, t in zip(at, top, strict=True)])
        result[i][inside] = labels.array[tuple(a[inside] for a in at)]
    return result
