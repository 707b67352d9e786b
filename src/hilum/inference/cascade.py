"""A cascade: what one model found, given to the next one as more channels.

Comes in: a prepared scan and the Predictor of the model before. Goes out: the same case with that model's classes on
its grid. Labels are resampled as nnU-Net v2 does it: each label's mask linearly; it is there from a share of one half.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hilum.inference.source import Prepared
from hilum.prepare.preprocess import restream
from hilum.prepare.resample import ROWS, ImageSlabs
from hilum.progress import SILENT, Progress

if TYPE_CHECKING:
    from hilum.inference.predict import Predictor


def with_earlier(case: Prepared, first: Predictor, progress: Progress = SILENT) -> Prepared:
    """The case with what the model before finds in it, not post-processed."""
    own = restream(case, first.plan)
    found = first.predict(own, progress=progress).labels.oriented(case.source_inside.codes)
    start = np.rint(found.grid.index(case.source_inside.affine[:3, 3])).astype(int)
    found = found.cropped(start, start + np.array(case.source_inside.shape))
    classes_ZYX = first.scheme.class_lookup()[found.array]
    return replace(case, earlier_DHW=on_grid(classes_ZYX, case.grid.shape, case.nearest_axis))


def on_grid(classes_ZYX: np.ndarray, shape: tuple[int, int, int], nearest_axis: int | None) -> np.ndarray:
    """Class indices over the same extent with another number of voxels: (D, H, W) uint8.

    Args:
        classes_ZYX: uint8.
        shape: the wanted (D, H, W).
        nearest_axis: along which the nearest slice is taken.
    """
    if classes_ZYX.shape == shape:
        return np.ascontiguousarray(classes_ZYX)
    out = np.zeros(shape, np.uint8)
    for value in np.unique(classes_ZYX)[np.unique(classes_ZYX) > 0]:
        shares = ImageSlabs(classes_ZYX == value, shape, order=1, nearest_axis=nearest_axis)
        slab_SHW = np.empty((ROWS, *shape[1:]), np.float32)
        for first in range(0, shape[0], ROWS):
            planes = slab_SHW[: min(ROWS, shape[0] - first)]
            shares.fill(planes, first)
            out[first : first + ROWS][planes >= 0.5] = value
    return out
