"""Facts of a CT that tell whether it is what it claims: HU range, a digest of its content, left and right.

Comes in: an image, perhaps with labels. Goes out: plain numbers, findings. It changes nothing.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from hilum.components import nonzero_box
from hilum.labels import LabelScheme
from hilum.results.sides import body_mid_x_mm
from hilum.survey.findings import Finding
from hilum.volume import Volume

# Between these HU nothing is clipped or padded by any release of the public sets
CONTENT_HU = (-900, 1000)
_LIVER_OFF_MM = 20.0
_CHUNK = 1 << 20


def facts_of_image(image: Volume) -> dict[str, Any]:
    """Shape, spacing, HU range and percentiles, and the digest of what is to be seen."""
    counts = histogram(image.array)
    low, high = int(np.floor(image.array.min())), int(np.ceil(image.array.max()))
    return {
        "shape": list(image.shape),
        "spacing_mm": [round(v, 6) for v in image.spacing_mm],
        "codes": image.codes,
        "stored": str(image.header.get("stored_type", image.array.dtype.name)),
        "hu_min": low,
        "hu_max": high,
        "content": content_digest(image.shape, counts),
    }


def histogram(array: np.ndarray) -> np.ndarray:
    """(1901,) int64: how many voxels carry each whole HU of ``CONTENT_HU``; fractions are rounded."""
    low, high = CONTENT_HU
    counts = np.zeros(high - low + 1, np.int64)
    flat = array.ravel(order="K")
    for start in range(0, flat.size, _CHUNK):
        piece = np.rint(flat[start : start + _CHUNK]).astype(np.int32) - low
        counts += np.bincount(piece[(piece >= 0) & (piece <= high - low)], minlength=high - low + 1)
    return counts


def content_digest(shape: tuple[int, ...], counts: np.ndarray) -> str:
    """A digest that the same scan keeps when it is flipped, turned, clipped, padded with other values or stored anew.

    It is made of the sorted voxel counts of the axes and of the histogram over ``CONTENT_HU``: two different scans of
    millions of noisy voxels do not agree in 1901 counts. "" where a histogram has too few values to tell (no real CT).
    """
    if np.count_nonzero(counts) < 100:
        return ""
    return hashlib.sha256(np.asarray(sorted(shape), np.int64).tobytes() + counts.tobytes()).hexdigest()[:32]


def left_and_right(image: Volume, labels: Volume, scheme: LabelScheme | None) -> list[Finding]:
    """A liver on the patient's left: the affine has left and right exchanged (or, rarely, the patient has).

    Compared are the x of the liver's centre and of the body's over the slices that hold the liver.
    """
    values = scheme.of("liver", "organ") if scheme is not None else ()
    if not values:
        return []
    inside, map_ = image.oriented(), labels.oriented()
    mask = np.isin(map_.array, values)
    box = nonzero_box(mask)
    if box is None or inside.shape != map_.shape:
        return []
    body = body_mid_x_mm(inside, (box[0].start, box[0].stop))
    if body is None:
        return []
    weights = mask[box].sum(axis=(0, 1))
    column = float(np.average(np.arange(box[2].start, box[2].stop), weights=weights))
    middle = [(part.start + part.stop - 1) / 2 for part in box[:2]]
    off = float(inside.world([*middle, column])[0]) - body
    if off > -_LIVER_OFF_MM:
        return []
    return [
        Finding(
            "mirrored",
            f"the liver's centre lies {-off:.0f} mm to the patient's left of the body's: left and right are exchanged "
            "(or the organs are)",
            image.source,
            "look at it; --fix exchanges left and right in both affines",
            {"do": "mirror", "file": "both"},
        )
    ]
