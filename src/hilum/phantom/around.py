"""Paints labelled voxels of a real label map, and what lies closest around them.

Comes in: a label map and a body fitted to it; then ``Slab`` after ``Slab`` with everything else painted. Goes out: the
painted slabs: each labelled voxel gets its own tissue, the sinus its fat, vessels and pelvis, and whatever organ would
overlap gives way to fat. No label is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np

from hilum.components import components_of, nonzero_box
from hilum.phantom.anatomy import Part
from hilum.phantom.exact import F
from hilum.phantom.kidneys import YIELDING
from hilum.phantom.lesions import Lesion, Subtype, tissue_hu
from hilum.phantom.shapes import Ellipsoid, Slab

HU = dict[str, float]
REACH_MM = 16.0  # how far around labelled voxels anything is painted
_CLOSE_MM = 11.0  # gaps narrower than twice this between parts of a kidney are its sinus
_COARSE_MM = 2.0


@dataclass(frozen=True)
class Surroundings:
    """Distances around labelled voxels, on a box of the grid (Z, Y, X).

    Attributes:
        box: where the box lies in the grid.
        labels: uint8.
        inner: depth (mm) of labelled voxels below the next other label; 0 elsewhere.
        outer: distance (mm) to the next labelled voxel; 0 inside.
        sinus: depth (mm) within the kidneys' hollows; 0 elsewhere.
        lesions: number of the lesion at each voxel, 0 for none.
        found: the lesions, from number 1 on, each with its greatest depth (mm).
    """

    box: tuple[slice, slice, slice]
    labels: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    sinus: np.ndarray
    lesions: np.ndarray
    found: tuple[tuple[Lesion, float], ...]


def survey(labels_ZYX: np.ndarray, spacing_zyx: tuple[float, float, float], rng: np.random.Generator) -> Surroundings:
    """Measure a label map; draws what its lesions consist of.

    Args:
        labels_ZYX: uint8, at least one voxel labelled.
        spacing_zyx: mm.
        rng: random numbers.
    """
    tight = nonzero_box(labels_ZYX)
    assert tight is not None
    pads = [int(np.ceil((REACH_MM + 2) / s)) for s in spacing_zyx]
    a, b, c = (
        slice(max(0, cut.start - pad), min(n, cut.stop + pad))
        for cut, pad, n in zip(tight, pads, labels_ZYX.shape, strict=True)
    )
    box = (a, b, c)
    labels = np.ascontiguousarray(labels_ZYX[box])
    inner = edt.edt(labels, anisotropy=spacing_zyx, black_border=False, parallel=1)
    outer = edt.edt(labels == 0, anisotropy=spacing_zyx, black_border=False, parallel=1)
    pieces, count = components_of(np.where(labels >= 2, labels, 0).astype(np.uint8))
    kinds = np.zeros(count + 1, np.uint8)
    kinds[pieces[labels >= 2]] = labels[labels >= 2]
    depths = np.zeros(count + 1, np.float32)
    np.maximum.at(depths, pieces[labels >= 2], inner[labels >= 2])
    found = tuple((_lesion(rng, int(kinds[i]), float(depths[i])), float(depths[i])) for i in range(1, count + 1))
    return Surroundings(box, labels, inner, outer, _hollows(labels, spacing_zyx), pieces, found)


def _lesion(rng: np.random.Generator, label: int, depth_mm: float) -> Lesion:
    """What a labelled lesion may consist of; its shape is the label's."""
    u = rng.uniform
    nowhere = Ellipsoid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    first, second = u(size=2)
    if label == 3:
        subtype: Subtype = "complex" if first < 0.2 and depth_mm > 7 else "simple"
        return Lesion("cyst", subtype, 0, nowhere, brighter=u(0, 25) if subtype == "complex" else u(-3, 3))
    names: list[Subtype] = ["clear_cell", "papillary", "chromophobe", "fat_rich"]
    subtype = names[int(np.searchsorted(np.cumsum([0.72, 0.13, 0.08, 0.07]), first))]
    likely = {"clear_cell": 0.7, "papillary": 0.4, "chromophobe": 0.25, "fat_rich": 0.0}[subtype]
    dead = u(0.3, 0.7) if depth_mm > 13 and second < likely else 0.0
    return Lesion("tumour", subtype, 0, nowhere, brighter=float(rng.normal(0, 12)), mottle=u(4, 18), necrosis=dead)


def _hollows(labels: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Depth within the hollows of the kidneys: what a closing by ``_CLOSE_MM`` adds to them, on a coarser grid."""
    steps = [max(1, round(_COARSE_MM / s)) for s in spacing]
    coarse = np.ascontiguousarray(labels[:: steps[0], :: steps[1], :: steps[2]] > 0)
    sizes = tuple(s * k for s, k in zip(spacing, steps, strict=True))
    pad = [(int(_CLOSE_MM / s) + 2,) * 2 for s in sizes]
    wide = np.pad(coarse, pad)
    grown = edt.edt(~wide, anisotropy=sizes, parallel=1) < _CLOSE_MM
    closed = edt.edt(grown, anisotropy=sizes, parallel=1) > _CLOSE_MM
    depth = edt.edt(closed & ~wide, anisotropy=sizes, parallel=1)
    depth = depth[tuple(slice(p, n - q) for (p, q), n in zip(pad, wide.shape, strict=True))]
    places = [np.minimum(np.arange(n) // k, m - 1) for n, k, m in zip(labels.shape, steps, depth.shape, strict=True)]
    fine: np.ndarray = depth[np.ix_(*places)]
    fine[labels > 0] = 0
    return fine


def paint_labels(slab: Slab, cut: slice, seen: Surroundings, hu: HU) -> None:
    """Paint what the label map says on the slices ``cut`` of the grid."""
    first, last = max(cut.start, seen.box[0].start), min(cut.stop, seen.box[0].stop)
    if first >= last:
        return
    here = slice(first - seen.box[0].start, last - seen.box[0].start)
    place = (slice(first - cut.start, last - cut.start), seen.box[1], seen.box[2])
    labels, inner, outer, sinus = seen.labels[here], seen.inner[here], seen.outer[here], seen.sinus[here]
    value, part = slab.hu[place], slab.part[place]
    ripple, texture = slab.ripple[place], slab.texture[place]
    yielding = np.zeros(256, bool)
    yielding[list(YIELDING)] = True
    # organs give way; the fat is thinner here, thicker there
    bed = (outer > 0) & (outer < F(6.5) + F(3) * ripple) & yielding[part]
    value[bed] = F(hu["visceral_fat"]) + 4 * ripple[bed]
    part[bed] = Part.VISCERAL_FAT
    hollow = sinus > 0
    if hollow.any():
        value[hollow] = _sinus_hu(sinus[hollow], ripple[hollow], texture[hollow], hu)
        part[hollow] = Part.SINUS
    kidney = labels == 1
    value[kidney] = _parenchyma_hu(inner[kidney], ripple[kidney], texture[kidney], hu)
    part[kidney] = Part.KIDNEY_RIGHT
    numbers = seen.lesions[here]
    for number in np.unique(numbers[numbers > 0]).tolist():
        lesion, depth = seen.found[number - 1]
        there = numbers == number
        distance = -inner[there]
        dead = None if lesion.necrosis <= 0 else distance + F((1 - lesion.necrosis) * depth)
        value[there] = tissue_hu(lesion, distance, dead, ripple[there], texture[there], hu)
        part[there] = Part.LESION


def _parenchyma_hu(depth: np.ndarray, ripple: np.ndarray, texture: np.ndarray, hu: HU) -> np.ndarray:
    """Cortex outside and in columns, pyramids of medulla deeper in."""
    pyramid = np.clip((depth - F(6.0)) / F(2.0), 0, 1) * np.clip(F(1.6) * ripple + F(0.6) * texture + F(0.9), 0, 1)
    value: np.ndarray = F(hu["cortex"]) + pyramid * F(hu["medulla"] - hu["cortex"]) + F(2.5) * ripple
    return value


def _sinus_hu(depth: np.ndarray, ripple: np.ndarray, texture: np.ndarray, hu: HU) -> np.ndarray:
    """Fat, with vessels in it and the renal pelvis in its depth."""
    value = F(hu["sinus_fat"]) + 8 * ripple
    vessel = np.clip((texture - F(0.55)) * F(3), 0, 1)
    value += vessel * (F(0.5 * (hu["cava"] + hu["aorta"])) - value)
    pelvis = np.clip((depth - F(4.5) + F(1.5) * ripple) / F(1.5), 0, 1)
    value += pelvis * (F(hu["urine"]) - value)
    return value
