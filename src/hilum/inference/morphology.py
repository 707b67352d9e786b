"""Opening and closing of label maps by a ball in millimetres, as steps of post-processing.

Comes in: labels in SPL order, changed in place. Goes out: for each label that changed its name, how many voxels and a
mask of them. Distances are exact and Euclidean (``edt``), so that thick slices count as what they are. An organ is
taken together with its lesions, lest a tumour be taken for a gap; a lesion by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import edt
import numpy as np

from hilum.components import box_of, components_of, dilated, wider
from hilum.errors import RecipeError
from hilum.labels import Label, LabelScheme
from hilum.volume import Volume


def opened(
    volume: Volume, scheme: LabelScheme, radius_mm: float, names: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Remove what a ball of this radius does not fit into: bridges, spurs, specks.

    Organ becomes background; lesion becomes the organ that the removed piece touches most, else background.
    """
    for label in _chosen(scheme, names):
        box = box_of(volume.array, _members(label, scheme))
        if box is None:
            continue
        view = volume.array[wider(box, volume.array.shape)]
        mask = np.isin(view, _members(label, scheme))
        kept = _within(_further(mask, radius_mm, volume.spacing_mm), radius_mm, volume.spacing_mm)
        gone = ~kept & (view == label.value)
        if not gone.any():
            continue
        view[gone] = 0
        if label.is_lesion:
            _to_hosts(view, gone, scheme.of(label.organ, "organ"))
        yield label.name, gone


def closed(
    volume: Volume, scheme: LabelScheme, radius_mm: float, names: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Fill what a ball of this radius outside does not fit into: gaps, notches, missed slices.

    An organ takes background only; a lesion takes background and its own organ.
    """
    for label in _chosen(scheme, names):
        members = _members(label, scheme)
        box = box_of(volume.array, members)
        if box is None:
            continue
        margin = [math.ceil(radius_mm / spacing) + 1 for spacing in volume.spacing_mm]
        view = volume.array[box]
        mask = np.pad(np.isin(view, members), [(m, m) for m in margin])
        full = _further(_within(mask, radius_mm, volume.spacing_mm), radius_mm, volume.spacing_mm)
        inner = full[tuple(slice(m, n - m) for m, n in zip(margin, full.shape, strict=True))]
        free = (0, *scheme.of(label.organ, "organ")) if label.is_lesion else (0,)
        added = inner & np.isin(view, free)
        if added.any():
            view[added] = label.value
            yield label.name, added


def check_radius(radius_mm: float) -> None:
    """Refuse a radius that is none.

    Raises:
        RecipeError: not above 0, or more than any organ bears.
    """
    if not 0 < radius_mm <= 50:
        raise RecipeError(f"radius_mm = {radius_mm:g} of opening or closing", wanted="above 0 and at most 50 mm")


def _chosen(scheme: LabelScheme, names: Sequence[str]) -> list[Label]:
    """The labels meant, organs first."""
    meant = [label for label in scheme.labels if not names or label.name in names]
    return sorted(meant, key=lambda label: label.is_lesion)


def _members(label: Label, scheme: LabelScheme) -> tuple[int, ...]:
    lesions = () if label.is_lesion or not label.organ else scheme.of(label.organ, "tumour", "cyst")
    return (label.value, *lesions)


def _further(mask: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """Eroded: voxels with no background within the radius; beyond the array there is none."""
    far: np.ndarray = edt.edt(np.ascontiguousarray(mask), anisotropy=tuple(spacing_mm), black_border=False) > radius_mm
    return far if not mask.all() else mask


def _within(mask: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """Dilated: voxels with the mask within the radius."""
    if not mask.any():
        return mask
    near: np.ndarray = edt.edt(np.ascontiguousarray(~mask), anisotropy=tuple(spacing_mm)) <= radius_mm
    return near


def _to_hosts(view: np.ndarray, gone: np.ndarray, hosts: Sequence[int]) -> None:
    """Give each removed piece to the organ label that it touches with most of its voxels, if any."""
    pieces, count = components_of(gone)
    touching = np.stack(
        [np.zeros(count + 1, np.int64)]
        + [np.bincount(pieces[dilated(view == host) & gone], minlength=count + 1) for host in hosts]
    )
    best = touching.argmax(axis=0)
    values = np.array([0, *hosts], np.uint8)[best]
    view[gone] = values[pieces[gone]]
