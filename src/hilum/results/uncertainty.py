"""How sure a volume is: intervals from a model's probabilities, or from the label maps of several folds.

Comes in: the measured label map, and for each label its probabilities (uint8, 255 means 1, as ``segment
--probabilities`` writes them), or label maps of other folds or readers on the same grid. Goes out: the table
``uncertainty`` of ``measurements.json``.

From probabilities. A voxel is in the lesion if its probability exceeds a threshold that is drawn once for all voxels;
the volume at the thresholds 0.95 and 0.05 is then a 90 % interval. This takes errors of neighbours as wholly
correlated, which is the widest interval that the probabilities allow; it is only as good as they are calibrated. Only
voxels nearer to this lesion than to another of its label, and at most 10 mm from it, count. A lesion's confidence is
the mean probability of its label over its voxels.

From folds. The interval runs from the smallest to the largest volume that any fold (this map included) gives. A
lesion's confidence is the share of folds in which a lesion of its label covers some of it (a tenth of it or more).
Disagreement is 1 - the mean Dice of the label over all pairs of maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from hilum.errors import LabelError
from hilum.files import plain
from hilum.labels import LabelScheme
from hilum.results.lesion_map import LesionMap, lesion_map
from hilum.volume import Volume, require_same_grid

REACH_MM = 10.0
LOW, HIGH = 0.05, 0.95
_TOUCH = 0.1  # of a lesion, for a fold to have seen it


def uncertainty(
    labels: Volume,
    table: Mapping[str, Any],
    scheme: LabelScheme,
    *,
    probabilities: Mapping[str, Volume] | None = None,
    folds: Sequence[Volume] = (),
) -> dict[str, Any] | None:
    """Intervals and confidences; None without probabilities and folds.

    Args:
        labels: the label map, any axis order.
        table: its measurements.
        scheme: what the labels mean.
        probabilities: by label name, uint8 or 0..1.
        folds: other label maps of the same scan.

    Returns:
        ``from`` ("probabilities" or "folds"), ``labels``: volume intervals by label name, ``lesions``: one entry for
        each number, ``disagreement`` (folds only).

    Raises:
        GeometryError: a map lies on another grid.
        LabelError: probabilities outside 0..1, or a fold with unknown labels.
    """
    if not probabilities and not folds:
        return None
    numbered = lesion_map(labels, scheme, table["lesions"])
    if probabilities:
        shares = {name: _shares(labels, volume) for name, volume in probabilities.items()}
        answer = _from_probabilities(labels, table, scheme, numbered, shares)
    else:
        maps = [_fold(labels, volume, scheme) for volume in folds]
        answer = _from_folds(labels, table, scheme, numbered, maps)
    rounded: dict[str, Any] = plain(answer, decimals=4)
    return rounded


def _shares(labels: Volume, volume: Volume) -> np.ndarray:
    """(D, H, W) probabilities in SPL order, as they are stored."""
    inside = volume.oriented()
    require_same_grid(labels.oriented(), inside)
    top = float(inside.array.max())
    if inside.array.min() < 0 or top > (255 if inside.array.dtype.kind in "ui" else 1.0):
        raise LabelError(
            f"holds values up to {top:g}", where=volume.source or None, wanted="probabilities: 0..255 or 0..1"
        )
    return inside.array


def _fold(labels: Volume, volume: Volume, scheme: LabelScheme) -> np.ndarray:
    inside = volume.oriented()
    require_same_grid(labels.oriented(), inside)
    return scheme.check(inside.array, volume.source)


def _from_probabilities(
    labels: Volume,
    table: Mapping[str, Any],
    scheme: LabelScheme,
    numbered: LesionMap | None,
    shares: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    ml = labels.voxel_ml
    entries: dict[str, Any] = {}
    for name, array in shares.items():
        scale = 255.0 if array.dtype.kind in "ui" else 1.0
        entries[name] = {
            "volume_ml": table["volumes_ml"].get(name, 0.0),
            "low_ml": float(np.count_nonzero(array > HIGH * scale) * ml),
            "high_ml": float(np.count_nonzero(array > LOW * scale) * ml),
        }
    lesions = []
    for lesion in table["lesions"]:
        if numbered is not None and lesion["label"] in shares:
            lesions.append(_lesion_from_shares(lesion, table["lesions"], numbered, shares[lesion["label"]], labels))
    return {"from": "probabilities", "level": HIGH - LOW, "labels": entries, "lesions": lesions}


def _lesion_from_shares(
    lesion: Mapping[str, Any],
    lesions: Sequence[Mapping[str, Any]],
    numbered: LesionMap,
    shares: np.ndarray,
    labels: Volume,
) -> dict[str, Any]:
    """Interval and confidence of one lesion, looked at in a box of 10 mm around it."""
    box = numbered.box(int(lesion["id"]))
    assert box is not None
    spacing = numbered.grid.spacing_mm
    margin = [int(np.ceil(REACH_MM / s)) for s in spacing]
    place = [int(n) for n in numbered.start]
    whole = [
        slice(max(0, part.start + p - m), min(n, part.stop + p + m))
        for part, p, m, n in zip(box, place, margin, shares.shape, strict=True)
    ]
    values = shares[tuple(whole)].astype(np.float32) / (255.0 if shares.dtype.kind in "ui" else 1.0)
    ids = np.zeros(values.shape, np.uint16)
    there = [
        slice(max(w.start, p), min(w.stop, p + n)) for w, p, n in zip(whole, place, numbered.ids_DHW.shape, strict=True)
    ]
    inner = tuple(slice(t.start - w.start, t.stop - w.start) for t, w in zip(there, whole, strict=True))
    ids[inner] = numbered.ids_DHW[tuple(slice(t.start - p, t.stop - p) for t, p in zip(there, place, strict=True))]
    mine = ids == lesion["id"]
    others = np.isin(ids, [x["id"] for x in lesions if x["label"] == lesion["label"] and x["id"] != lesion["id"]])
    away = distance_transform_edt(~mine, sampling=spacing)
    near = away <= REACH_MM
    if others.any():
        near &= away <= distance_transform_edt(~others, sampling=spacing)
    ml = labels.voxel_ml
    return {
        "id": lesion["id"],
        "confidence": float(values[mine].mean()),
        "low_ml": float(np.count_nonzero(near & (values > HIGH)) * ml),
        "high_ml": float(np.count_nonzero(near & (values > LOW)) * ml),
    }


def _from_folds(
    labels: Volume,
    table: Mapping[str, Any],
    scheme: LabelScheme,
    numbered: LesionMap | None,
    folds: Sequence[np.ndarray],
) -> dict[str, Any]:
    own = labels.oriented().array
    maps, ml = [own, *folds], labels.voxel_ml
    entries, disagreement = {}, {}
    for label in scheme.labels:
        masks = [array == label.value for array in maps]
        volumes = [float(np.count_nonzero(mask) * ml) for mask in masks]
        entries[label.name] = {"volume_ml": volumes[0], "low_ml": min(volumes), "high_ml": max(volumes)}
        dices = [_dice(a, b) for a, b in combinations(masks, 2)]
        known = [dice for dice in dices if dice is not None]
        disagreement[label.name] = 1 - float(np.mean(known)) if known else None
    lesions = []
    for lesion in table["lesions"]:
        box = None if numbered is None else numbered.box(int(lesion["id"]))
        if numbered is None or box is None:
            continue
        place = tuple(slice(s.start + int(p), s.stop + int(p)) for s, p in zip(box, numbered.start, strict=True))
        mine = numbered.ids_DHW[box] == lesion["id"]
        shares = [float((fold[place][mine] == lesion["value"]).mean()) for fold in folds]
        lesions.append({"id": lesion["id"], "confidence": float(np.mean([share >= _TOUCH for share in shares]))})
    return {"from": "folds", "folds": len(folds), "labels": entries, "lesions": lesions, "disagreement": disagreement}


def _dice(one: np.ndarray, other: np.ndarray) -> float | None:
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2.0 * int(np.count_nonzero(one & other)) / total if total else None
