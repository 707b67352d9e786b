"""Which voxel belongs to which numbered lesion.

Comes in: a label map and its measurements. Goes out: the box around all labels with, for each voxel, the number of its
lesion as in ``measurements["lesions"]``. It measures nothing: it finds the components again by label, size and centre.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np

from hilum.components import components_of
from hilum.labels import LabelScheme
from hilum.results.inside import bounding_box
from hilum.volume import INSIDE, Grid, Volume

_SAME_MM = 0.01  # centres are written to a tenth of a micrometre


@dataclass(frozen=True)
class LesionMap:
    """The box around all labels, in SPL order.

    Attributes:
        labels_DHW: label values in the box.
        ids_DHW: uint16, the number of each voxel's lesion; 0 for organs, background and specks.
        grid: where the box lies.
        start: index of its first voxel in the whole volume (SPL).
    """

    labels_DHW: np.ndarray
    ids_DHW: np.ndarray
    grid: Grid
    start: np.ndarray

    def box(self, number: int) -> tuple[slice, ...] | None:
        """The box (inside this one) around one lesion, None if it has no voxels."""
        return bounding_box(self.ids_DHW == number)


def lesion_map(labels: Volume, scheme: LabelScheme, lesions: Sequence[Mapping[str, Any]]) -> LesionMap | None:
    """Numbers for voxels; None for an empty label map.

    Args:
        labels: the label map that was measured, any axis order.
        scheme: what the labels mean.
        lesions: ``measurements["lesions"]``.
    """
    turned = labels.oriented(INSIDE)
    box = bounding_box(turned.array)
    if box is None:
        return None
    start = np.array([max(0, part.start - 1) for part in box])
    stop = np.minimum([part.stop + 1 for part in box], turned.shape)
    cut = turned.cropped(start, stop)
    array = np.ascontiguousarray(cut.array)
    keep = np.zeros(256, np.uint8)
    values = [label.value for label in scheme.labels if label.is_lesion]
    keep[values] = values
    components, _ = components_of(keep[array])
    facts = cc3d.statistics(components)
    table = np.zeros(len(facts["voxel_counts"]), np.uint16)
    for lesion in lesions:
        here = np.asarray(facts["centroids"], float).copy()
        here[np.isnan(here)] = -1e6
        away = np.linalg.norm(cut.grid.world(here) - np.asarray(lesion["centroid_mm"]), axis=1)
        away[0] = np.inf
        volumes_ml = facts["voxel_counts"] * (cut.grid.voxel_volume_mm3 / 1000)
        away[np.abs(volumes_ml - lesion["volume_ml"]) > 1e-4 + 1e-3 * lesion["volume_ml"]] = np.inf
        best = int(away.argmin())
        if away[best] < _SAME_MM:
            table[best] = lesion["id"]
    return LesionMap(array, table[components], cut.grid, start)
