"""Which slice to show, and how its voxels become square pixels.

Comes in: volumes in "SPL" order. Goes out: Views (a plane, a slice, a crop, a size) and 2-D pictures of it in
radiological display: axial and coronal with the patient's right on the left, sagittal with the front on the left,
head up. It knows no colours and writes no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cc3d
import numpy as np
from PIL import Image

from hilum.components import components_of, nonzero_box
from hilum.labels import LabelScheme
from hilum.volume import Volume

Plane = Literal["axial", "coronal", "sagittal"]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
# plane: (axis that is cut, axis that runs down the picture, axis that runs across), in SPL order
_AXES: dict[Plane, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
# plane: letters at the left, right, top and bottom of the picture
LETTERS: dict[Plane, tuple[str, str, str, str]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
BODY_HU = -500
LEVEL_HU, WIDTH_HU = 40.0, 400.0


@dataclass(frozen=True)
class View:
    """One slice, cropped, at a size.

    Attributes:
        plane: which way it is cut.
        index: the slice along the axis that is cut.
        box: first voxel and one after the last, for all three axes.
        spacing_mm: of the volume, D, H, W.
        width: of the picture in pixels; its height follows, so that pixels are square.
    """

    plane: Plane
    index: int
    box: Box
    spacing_mm: tuple[float, float, float]
    width: int

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Height and width of the picture in mm."""
        _, down, across = _AXES[self.plane]
        (a, b), (c, d) = self.box[down], self.box[across]
        return (b - a) * self.spacing_mm[down], (d - c) * self.spacing_mm[across]

    @property
    def pixels_per_mm(self) -> float:
        """Scale of the picture, the same both ways."""
        return self.width / self.extent_mm[1]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, max(1, round(self.extent_mm[0] * self.pixels_per_mm))

    def cut(self, array_DHW: np.ndarray) -> np.ndarray:
        """(rows, columns): the voxels of this view as they are displayed, one pixel a voxel."""
        cut_axis, down, across = _AXES[self.plane]
        # not take(): of a reversed view it copies the whole volume first
        plane = np.moveaxis(array_DHW, cut_axis, 0)[self.index]
        picture = plane[slice(*self.box[down]), slice(*self.box[across])]
        shown: np.ndarray = picture if self.plane == "axial" else picture[::-1]  # S grows upwards
        return shown

    def pixel(self, index: Sequence[float]) -> tuple[float, float]:
        """Where a (fractional) voxel index (D, H, W) lies in the picture: x, y in pixels."""
        _, down, across = _AXES[self.plane]
        (first, last), (left, _) = self.box[down], self.box[across]
        row = index[down] - first + 0.5 if self.plane == "axial" else last - 0.5 - index[down]
        column = index[across] - left + 0.5
        scale = self.pixels_per_mm
        return float(column * self.spacing_mm[across] * scale), float(row * self.spacing_mm[down] * scale)

    def stretched(self, picture: np.ndarray) -> np.ndarray:
        """(height, width) float32: a cut picture at the size of the view, by cubic interpolation."""
        image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.float32))
        return np.asarray(image.resize(self.size, Image.Resampling.BICUBIC))


def grey(array_HW: np.ndarray, level_hu: float = LEVEL_HU, width_hu: float = WIDTH_HU) -> np.ndarray:
    """HU through a window to 0..1; the default is the soft-tissue window, -160 to 240 HU."""
    low = level_hu - width_hu / 2
    shade: np.ndarray = np.clip((array_HW.astype(np.float32) - low) / width_hu, 0.0, 1.0)
    return shade


def body_box(scan: Volume) -> Box:
    """The box around the body (the largest component above -500 HU on a 4 mm raster), with a margin of 8 mm."""
    steps = [max(1, round(4.0 / spacing)) for spacing in scan.spacing_mm]
    thin = scan.array[:: steps[0], :: steps[1], :: steps[2]] > BODY_HU
    pieces, _ = components_of(thin, 6)
    counts = np.bincount(pieces.ravel())
    if len(counts) < 2:
        return whole(scan.shape)
    boxes = cc3d.statistics(pieces)["bounding_boxes"]
    found = boxes[1 + int(counts[1:].argmax())]
    box = [(part.start * step, part.stop * step) for part, step in zip(found, steps, strict=True)]
    return _widened(box, 8.0, scan.spacing_mm, scan.shape)


def label_box(labels: Volume, margin_mm: float) -> Box:
    """The box around all labels with a margin; the whole image if there are none."""
    return box_if_any(labels, margin_mm) or whole(labels.shape)


def box_if_any(labels: Volume, margin_mm: float) -> Box | None:
    """The box around all labels with a margin; None if there are none."""
    found = nonzero_box(labels.array)
    if found is None:
        return None
    return _widened([(part.start, part.stop) for part in found], margin_mm, labels.spacing_mm, labels.shape)


def whole(shape: tuple[int, int, int]) -> Box:
    """The box of everything."""
    return (0, shape[0]), (0, shape[1]), (0, shape[2])


def views(labels: Volume, scheme: LabelScheme, box: Box, width: int, tallest: float = 1.2) -> tuple[View, ...]:
    """The most telling slice of each plane.

    Args:
        labels: the truth if there is one, else the prediction, in SPL order.
        scheme: what the labels mean.
        box: what to show (the body).
        width: of the pictures in pixels.
        tallest: coronal and sagittal pictures are cut to this height, in widths, around the labels.
    """
    made = []
    found = nonzero_box(labels.array)  # once: it looks at every voxel
    rows = (found[0].start, found[0].stop) if found is not None else None
    for plane, index in zip(PLANES, _best_in(labels.array, scheme, found), strict=True):
        view = View(plane, index, box, labels.spacing_mm, width)
        if plane != "axial":
            view = replace(view, box=(_shortened(rows, view, tallest, labels.shape[0]), box[1], box[2]))
        made.append(view)
    return tuple(made)


def best_slices(labels_DHW: np.ndarray, scheme: LabelScheme) -> tuple[int, int, int]:
    """For each plane the slice with the largest area of tumour, else of cyst, else the one with most of every organ.

    With several organs each one's area is counted as a share of its own largest, so that the liver does not outvote the
    kidneys. The middle slice if the map is empty.
    """
    return _best_in(labels_DHW, scheme, nonzero_box(labels_DHW))


def _best_in(
    labels_DHW: np.ndarray, scheme: LabelScheme, box: tuple[slice, slice, slice] | None
) -> tuple[int, int, int]:
    """``best_slices`` where the box around all labels is known."""
    if box is None:
        depth, height, width = labels_DHW.shape
        return depth // 2, height // 2, width // 2
    start = [int(part.start) for part in box]
    cut = labels_DHW[box]
    present = set(np.flatnonzero(np.bincount(cut.ravel(), minlength=256)).tolist())
    lesions = [[x.value for x in scheme.labels if x.kind == kind and x.value in present] for kind in ("tumour", "cyst")]
    wanted = next((group for group in lesions if group), sorted(present - {0}))
    by_plane: list[np.ndarray] = [np.zeros(n) for n in cut.shape]
    for value in wanted:
        mask = cut == value
        for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
            area = mask.sum(axis=others)
            by_plane[axis] = by_plane[axis] + (area if any(lesions) else area / area.max())
    z, y, x = (start[axis] + _middle_of_best(score) for axis, score in enumerate(by_plane))
    return z, y, x


def _middle_of_best(score: np.ndarray) -> int:
    """The middle one of equally good slices."""
    best = np.flatnonzero(score >= score.max() - 1e-9)
    return int(best[len(best) // 2])


def _widened(
    box: Sequence[tuple[int, int]], margin_mm: float, spacing_mm: Sequence[float], shape: Sequence[int]
) -> Box:
    margins = [round(margin_mm / spacing) for spacing in spacing_mm]
    a, b, c = ((max(0, lo - m), min(n, hi + m)) for (lo, hi), m, n in zip(box, margins, shape, strict=True))
    return a, b, c


def _shortened(rows: tuple[int, int] | None, view: View, tallest: float, depth: int) -> tuple[int, int]:
    """Slices to show: those with labels (``rows``: first and one after the last) and 60 mm more; no long thin strip."""
    first, last = view.box[0]
    spacing_mm = view.spacing_mm[0]
    most = max(1, round(tallest * view.extent_mm[1] / spacing_mm))
    if rows is not None:
        margin = round(60.0 / spacing_mm)
        first, last = max(first, rows[0] - margin), min(last, rows[1] + margin)
    if last - first <= most:
        return first, last
    low, high = rows or (0, depth)
    start = int(np.clip((low + high - most) // 2, first, last - most))
    return start, start + most
