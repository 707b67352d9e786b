"""The key slices of a lesion in three planes.

Comes in: the scan, the label map, one lesion's measurements. Goes out: three Pictures: axial where it is widest, with
its two axes and their lengths; coronal and sagittal through its middle, with a dotted line where the axial slice
lies. They show the same window around the lesion at the same scale, outlines as in ``figures``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hilum.labels import LabelScheme
from hilum.pages import strings, units
from hilum.pages.figures import (
    BACKGROUND,
    Picture,
    annotate,
    encoded,
    ground_of,
    outlined,
    to_image,
    with_lines,
)
from hilum.pages.slices import Box, Plane, View
from hilum.volume import Volume

SMALLEST_WINDOW_MM = 70.0


def lesion_slices(
    scan: Volume | None, labels: Volume, scheme: LabelScheme, lesion: Mapping[str, Any], width: int = 380
) -> tuple[Picture, ...]:
    """Axial, coronal and sagittal pictures of one lesion.

    Args:
        scan: HU in SPL order, or None.
        labels: the label map in SPL order.
        scheme: what the labels mean.
        lesion: its entry in ``measurements["lesions"]``.
        width: of each picture in pixels.
    """
    ends = [labels.index(lesion[key]) for key in ("long_axis_points_mm", "short_axis_points_mm")]
    centre = np.clip(labels.index(lesion["centroid_mm"]), 0, np.array(labels.shape) - 1)
    middle = np.mean(ends[0], axis=0)
    window_mm = max(SMALLEST_WINDOW_MM, 1.9 * max(lesion["long_axis_mm"], lesion["any_direction_mm"]))
    level = int(lesion["slice_index"])
    pictures = []
    places: tuple[tuple[Plane, int, np.ndarray], ...] = (
        ("axial", level, np.array([level, middle[1], middle[2]])),
        ("coronal", round(float(centre[1])), centre),
        ("sagittal", round(float(centre[2])), centre),
    )
    for plane, index, point in places:
        box = _window(point, window_mm, labels)
        view = View(plane, index, box, labels.spacing_mm, width)
        rgb = outlined(ground_of(view, scan), view, labels.array, scheme, fill=0.0 if scan is not None else 0.75)
        image = to_image(rgb)
        if plane == "axial":
            lengths = (lesion["long_axis_mm"], lesion["short_axis_mm"])
            lines = [
                ([view.pixel(e) for e in pair], units.millimetres(mm)) for pair, mm in zip(ends, lengths, strict=True)
            ]
            image = with_lines(image, lines)
        else:
            image = _with_level(image, view, level)
        image = _squared(image, width, 0 if scan is not None else round(255 * BACKGROUND))
        annotate(image, view, bar_mm=20.0)
        alt = strings.lesion_alt(lesion, plane, index + 1)
        pictures.append(encoded(image, strings.slice_title(plane, index + 1), alt))
    return tuple(pictures)


def _window(centre: np.ndarray, side_mm: float, labels: Volume) -> Box:
    """A cube around a point, cut at the image's border."""
    ranges = []
    for axis in range(3):
        half = side_mm / labels.spacing_mm[axis] / 2
        low = max(0, int(np.floor(centre[axis] - half)))
        high = min(labels.shape[axis], int(np.ceil(centre[axis] + half)) + 1)
        ranges.append((low, max(high, low + 1)))
    return ranges[0], ranges[1], ranges[2]


def _squared(image: Image.Image, width: int, grey: int) -> Image.Image:
    """The picture on a square of one grey, so that three planes stand in line; a taller one is shrunk."""
    if image.height > width:
        image = image.resize((max(1, round(image.width * width / image.height)), width), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (width, width), (grey, grey, grey))
    square.paste(image, ((width - image.width) // 2, (width - image.height) // 2))
    return square


def _with_level(image: Image.Image, view: View, level: int) -> Image.Image:
    """A dotted line at the height of the axial slice."""
    _, y = view.pixel((level, view.box[1][0], view.box[2][0]))
    draw = ImageDraw.Draw(image)
    for x in range(0, image.width, 9):
        draw.line([(x, y), (x + 4, y)], fill=(255, 255, 255), width=1)
    return image
