"""Arrays in SPL order back on the scan's own grid.

Comes in: what was computed for a case, in the order in which hilum sees scans. Goes out: Volumes in the file's axis
order with exactly the file's affine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hilum.inference.source import Prepared
from hilum.prepare.preprocess import placed
from hilum.volume import Volume


def on_source(case: Prepared, array_ZYX: np.ndarray) -> Volume:
    """An array in SPL order in the file's axis order, on exactly the file's grid; a view if nothing was cropped."""
    return Volume.on(case.source, placed(Volume.on(case.source_inside, array_ZYX), case.source))


def by_name(
    case: Prepared, names: Sequence[str], arrays_ZYX: Sequence[np.ndarray] | np.ndarray | None
) -> dict[str, Volume]:
    """``on_source`` of several arrays, as many as there are of them."""
    return {} if arrays_ZYX is None else {name: on_source(case, x) for name, x in zip(names, arrays_ZYX, strict=False)}


def in_place(classes_ZYX: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Class indices replaced by label values, plane by plane: no second array."""
    if (values != np.arange(len(values))).any():
        for plane in classes_ZYX:
            plane[:] = values[plane]
    return classes_ZYX
