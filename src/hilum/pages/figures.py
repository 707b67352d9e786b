"""Pictures of a case: CT, truth, prediction and overlay in three planes, and each lesion with its diameters.

Comes in: Volumes (any axis order), a scheme, measurements. Goes out: Pictures, encoded and with a text for those who
cannot see them. Drawn with NumPy and Pillow: outlines are the half level of the mask after it is stretched to display
size, with soft edges, so they stay crisp at any spacing. Colours are the scheme's; agreement and errors use four
colours of Okabe and Ito (2008).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from hilum.labels import LabelScheme
from hilum.pages import strings
from hilum.pages.slices import LETTERS, Box, Plane, View, body_box, box_if_any, grey, views, whole
from hilum.volume import Volume, require_same_grid

AGREED, MISSED, INVENTED, SWAPPED = "#009E73", "#F0E442", "#CC79A7", "#0072B2"
FILL = 0.35
SMOOTH_VOXELS = 0.45  # takes the staircase off outlines, and leaves a lesion of one voxel visible
BACKGROUND = 0.09  # grey where there is no scan
_WHITE, _INK = (255, 255, 255, 255), (0, 0, 0, 190)


@dataclass(frozen=True)
class Picture:
    """One encoded picture.

    Attributes:
        title: a word or two to stand above it.
        alt: what it shows, for screen readers.
        data: the encoded bytes.
        media: "image/jpeg" or "image/png".
        width: in pixels.
        height: in pixels.
    """

    title: str
    alt: str
    data: bytes
    media: str
    width: int
    height: int

    @property
    def uri(self) -> str:
        """A data: URI that carries the picture in the page itself."""
        return f"data:{self.media};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Row:
    """The pictures of one plane, side by side."""

    plane: Plane
    index: int
    slices: int
    pictures: tuple[Picture, ...]


def case_rows(
    scan: Volume | None, prediction: Volume, scheme: LabelScheme, truth: Volume | None = None, width: int = 560
) -> list[Row]:
    """The best slice of each plane, several ways.

    With a truth: CT, truth, prediction, agreement, on the slice where the truth's lesion (else organ) is largest.
    Without: CT, segmentation, outlines. Where there is no scan the CT column falls away and the rest is drawn on a
    dark ground.

    Raises:
        GeometryError: the volumes do not lie on one grid.
    """
    inside = prediction.oriented()
    scan = None if scan is None else scan.oriented()
    truth = None if truth is None else truth.oriented()
    for other in (scan, truth):
        if other is not None:
            require_same_grid(inside, other)
    reference = inside if truth is None or not truth.array.any() else truth
    rows = []
    for view in views(reference, scheme, _box(scan, inside, truth), width):
        pictures = _panels(view, scan, inside, truth, scheme)
        rows.append(Row(view.plane, view.index, _slices(inside, view.plane), tuple(pictures)))
    return rows


def lesion_picture(
    scan: Volume | None, labels: Volume, scheme: LabelScheme, lesion: Mapping[str, Any], width: int = 420
) -> Picture:
    """The axial slice in which a lesion is widest, enlarged, with its two axes and their lengths drawn in."""
    labels = labels.oriented()
    scan = None if scan is None else scan.oriented()
    ends = [labels.index(lesion[key]) for key in ("long_axis_points_mm", "short_axis_points_mm")]
    centre = np.mean(ends[0], axis=0)
    side_mm = max(70.0, 2.2 * lesion["long_axis_mm"])
    box = _square(centre, side_mm, labels)
    view = View("axial", int(lesion["slice_index"]), box, labels.spacing_mm, width)
    rgb = outlined(ground_of(view, scan), view, labels.array, scheme, fill=0.0, line=2.0)
    image = to_image(rgb)
    lines = [
        ([view.pixel(end) for end in pair], f"{lesion[key]:.0f} mm")
        for pair, key in zip(ends, ("long_axis_mm", "short_axis_mm"), strict=True)
    ]
    image = with_lines(image, lines)
    annotate(image, view, bar_mm=20.0)
    alt = strings.lesion_alt(lesion, "axial", view.index + 1)
    return encoded(image, strings.TEXT["lesion_number"].format(lesion["id"]).capitalize(), alt)


def spot_picture(
    scan: Volume | None,
    truth: Volume,
    prediction: Volume,
    scheme: LabelScheme,
    place_mm: Sequence[float],
    diameter_mm: float,
    title: str,
    width: int = 320,
) -> Picture:
    """The axial slice through a place, enlarged: outlines of the truth on the left, of the prediction on the right.

    Raises:
        GeometryError: the volumes do not lie on one grid.
    """
    truth, prediction = truth.oriented(), prediction.oriented()
    scan = None if scan is None else scan.oriented()
    for other in (prediction, scan):
        if other is not None:
            require_same_grid(truth, other)
    centre = np.clip(truth.index(place_mm), 0, np.array(truth.shape) - 1)
    box = _square(centre, max(60.0, 3.0 * diameter_mm), truth)
    view = View("axial", round(float(centre[0])), box, truth.spacing_mm, width)
    fill = 0.0 if scan is not None else 0.8
    sides = [outlined(ground_of(view, scan), view, x.array, scheme, fill=fill, line=2.0) for x in (truth, prediction)]
    images = [to_image(side) for side in sides]
    for image in images:
        annotate(image, view, bar_mm=20.0)
    both = Image.new("RGB", (2 * width + 4, images[0].height), (255, 255, 255))
    both.paste(images[0], (0, 0))
    both.paste(images[1], (width + 4, 0))
    seen = (_seen(view, x, scheme) for x in (truth, prediction))
    alt = strings.TEXT["spot_alt"].format(view.index + 1, *seen)
    return encoded(both, title, alt)


def _panels(
    view: View, scan: Volume | None, prediction: Volume, truth: Volume | None, scheme: LabelScheme
) -> list[Picture]:
    ground = ground_of(view, scan)
    t = strings.TEXT
    place = t["slice"].format(view.plane.capitalize(), view.index + 1)
    fill = FILL if scan is not None else 0.8
    drawn: list[tuple[str, np.ndarray, str]] = []
    if scan is not None:
        drawn.append((t["panel_ct"], ground, t["ct_alt"].format(place)))
    if truth is None:
        filled = outlined(ground, view, prediction.array, scheme, fill=fill)
        alt = t["filled_alt"].format(place, _seen(view, prediction, scheme))
        drawn.append((t["panel_segmentation"], filled, alt))
        if scan is not None:
            bare = outlined(ground, view, prediction.array, scheme, fill=0.0)
            drawn.append((t["panel_outlines"], bare, t["bare_alt"].format(place)))
    else:
        for title, labels in ((t["panel_truth"], truth), (t["panel_prediction"], prediction)):
            filled = outlined(ground, view, labels.array, scheme, fill=fill)
            drawn.append((title, filled, t["titled_alt"].format(place, title.lower(), _seen(view, labels, scheme))))
        both = _agreement(ground, view, truth.array, prediction.array, fill=fill)
        drawn.append((t["panel_overlay"], both, t["overlay_alt"].format(place)))
    pictures = []
    for title, rgb, alt in drawn:
        image = to_image(rgb)
        annotate(image, view, bar_mm=50.0)
        pictures.append(encoded(image, title, alt))
    return pictures


def ground_of(view: View, scan: Volume | None) -> np.ndarray:
    """(height, width, 3) float 0..1: the CT in grey, or a dark ground."""
    if scan is None:
        width, height = view.size
        return np.full((height, width, 3), BACKGROUND, np.float32)
    picture = np.clip(view.stretched(grey(view.cut(scan.array))), 0.0, 1.0)
    return np.repeat(picture[..., None], 3, axis=2)


def outlined(
    ground: np.ndarray, view: View, labels_DHW: np.ndarray, scheme: LabelScheme, *, fill: float, line: float = 2.0
) -> np.ndarray:
    """Labels over a ground: a translucent fill and a solid outline each, organs first, lesions on top."""
    picture = ground.copy()
    cut = view.cut(labels_DHW)
    present = set(np.unique(cut).tolist())
    for label in sorted(scheme.labels, key=lambda x: (x.is_lesion, x.value)):
        if label.value in present:
            inside, edge = _soft(view, cut == label.value, line)
            _mix(picture, _rgb(label.colour), np.maximum(inside * fill, edge))
    return picture


def _agreement(
    ground: np.ndarray, view: View, truth_DHW: np.ndarray, prediction_DHW: np.ndarray, fill: float
) -> np.ndarray:
    """Voxels by what truth and prediction say of them: same label, missed, invented, or another label."""
    truth, prediction = view.cut(truth_DHW), view.cut(prediction_DHW)
    groups = (
        (AGREED, (truth == prediction) & (truth > 0)),
        (MISSED, (truth > 0) & (prediction == 0)),
        (INVENTED, (truth == 0) & (prediction > 0)),
        (SWAPPED, (truth > 0) & (prediction > 0) & (truth != prediction)),
    )
    picture = ground.copy()
    for colour, mask in groups:
        if mask.any():
            inside, _ = _soft(view, mask, 1.0)
            _mix(picture, _rgb(colour), inside * (fill if colour == AGREED else 0.8))
    if (truth > 0).any():
        _mix(picture, (1.0, 1.0, 1.0), _soft(view, truth > 0, 1.2)[1] * 0.9)
    return picture


def _soft(view: View, mask: np.ndarray, line: float) -> tuple[np.ndarray, np.ndarray]:
    """Coverage 0..1 of the inside of a mask and of its outline (``line`` pixels wide), both with soft edges.

    The distance to the outline in pixels is the stretched mask's difference from one half over its slope.
    """
    voxel = [view.size[1] / mask.shape[0], view.size[0] / mask.shape[1]]
    field = gaussian_filter(view.stretched(mask), [SMOOTH_VOXELS * size for size in voxel])
    slope = np.hypot(*np.gradient(field)) if min(field.shape) > 1 else np.zeros_like(field)
    distance = (field - 0.5) / np.maximum(slope, 1e-3)
    inside = np.clip(distance + 0.5, 0.0, 1.0)
    edge = np.clip(line / 2 + 0.5 - np.abs(distance), 0.0, 1.0)
    return inside, edge


def _mix(picture: np.ndarray, colour: Sequence[float], alpha: np.ndarray) -> None:
    picture += alpha[..., None] * (np.asarray(colour, np.float32) - picture)


def annotate(image: Image.Image, view: View, bar_mm: float) -> None:
    """Draw letters for the patient's sides and a scale bar of ``bar_mm`` into a picture."""
    draw = ImageDraw.Draw(image)
    width, height = image.size
    size = max(13, round(width / 23))
    font = ImageFont.load_default(size=size)
    flat = height < 6 * size  # a few slices seen from the side: no room for more than left and right
    left, right, top, bottom = LETTERS[view.plane]
    pad = round(width / 70) + 2
    beside = ((pad, height / 2, left, "lm"), (width - pad, height / 2, right, "rm"))
    above = () if flat else ((width / 2, pad, top, "ma"), (width / 2, height - pad, bottom, "md"))
    for x, y, text, anchor in (*beside, *above):
        draw.text((x, y), text, fill=(255, 255, 255), font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
    length = bar_mm * view.pixels_per_mm
    if flat or length > 0.6 * width:
        return
    x1, y1 = width - pad, height - pad
    draw.rectangle((x1 - length - 1, y1 - 5, x1 + 1, y1 + 1), fill=(0, 0, 0))
    draw.rectangle((x1 - length, y1 - 4, x1, y1), fill=(255, 255, 255))
    small = ImageFont.load_default(size=max(11, round(width / 28)))
    text = f"{bar_mm / 10:g} cm"
    spot = (x1 - length / 2, y1 - 8)
    draw.text(spot, text, fill=(255, 255, 255), font=small, anchor="md", stroke_width=2, stroke_fill=(0, 0, 0))


def with_lines(image: Image.Image, lines: Sequence[tuple[list[tuple[float, float]], str]]) -> Image.Image:
    """Measured axes with end ticks and their lengths; drawn four times as large and reduced, for soft edges.

    Args:
        image: stays as it is.
        lines: the two ends (x, y) in pixels and the text of each.
    """
    times = 4
    layer = Image.new("RGBA", (image.width * times, image.height * times), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    for number, (ends, _) in enumerate(lines):
        (x0, y0), (x1, y1) = ((x * times, y * times) for x, y in ends)
        length = max(1e-6, float(np.hypot(x1 - x0, y1 - y0)))
        tick = np.array([-(y1 - y0), x1 - x0]) / length * 5 * times
        ticks = [((x - tick[0], y - tick[1]), (x + tick[0], y + tick[1])) for x, y in ((x0, y0), (x1, y1))]
        strokes = [((x0, y0), (x1, y1)), *ticks]
        for colour, wide in ((_INK, 4.0), (_WHITE, 2.0 if number == 0 else 1.4)):
            for stroke in strokes:
                draw.line(stroke, fill=colour, width=round(wide * times))
    reduced = layer.resize(image.size, Image.Resampling.BOX)
    image = Image.alpha_composite(image.convert("RGBA"), reduced).convert("RGB")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(13, round(image.width / 26)))
    for ends, text in lines:
        (x0, y0), (x1, y1) = sorted(ends)
        length = max(1e-6, float(np.hypot(x1 - x0, y1 - y0)))
        x, y = x1 + 10 * (x1 - x0) / length, y1 + 14 * (y1 - y0) / length
        wide = draw.textlength(text, font=font)
        x, y = min(x, image.width - wide - 4), float(np.clip(y, 12, image.height - 12))
        draw.text((x, y), text, fill=(255, 255, 255), font=font, anchor="lm", stroke_width=2, stroke_fill=(0, 0, 0))
    return image


def encoded(image: Image.Image, title: str, alt: str) -> Picture:
    """JPEG at 88 without colour subsampling: outlines stay crisp, a panel takes some 40 kB."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88, subsampling=0)
    return Picture(title, alt, stream.getvalue(), "image/jpeg", *image.size)


def to_image(rgb: np.ndarray) -> Image.Image:
    """(height, width, 3) float 0..1 as a picture."""
    return Image.fromarray(np.clip(np.round(rgb * 255), 0, 255).astype(np.uint8))


def _rgb(colour: str) -> tuple[float, float, float]:
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return r, g, b


def _seen(view: View, labels: Volume, scheme: LabelScheme) -> str:
    """The names of the labels in a view, as a phrase."""
    present = set(np.unique(view.cut(labels.array)).tolist())
    names = [label.name for label in scheme.labels if label.value in present]
    return strings.listed(names) or strings.TEXT["nothing"]


def _slices(volume: Volume, plane: Plane) -> int:
    return volume.shape[("axial", "coronal", "sagittal").index(plane)]


def _box(scan: Volume | None, prediction: Volume, truth: Volume | None) -> Box:
    """What to show: the body, or without a scan the labels with 30 mm around them; never less than all labels."""
    margin_mm = 8.0 if scan is not None else 30.0
    found = [box_if_any(x, margin_mm) for x in (prediction, truth) if x is not None]
    boxes = [box for box in found if box is not None]
    if scan is not None:
        boxes.append(body_box(scan))
    boxes = boxes or [whole(prediction.shape)]
    a, b, c = ((min(box[i][0] for box in boxes), max(box[i][1] for box in boxes)) for i in range(3))
    return a, b, c


def _square(centre: np.ndarray, side_mm: float, labels: Volume) -> Box:
    """A square window in the slice around a point, moved inside the image (and smaller only if the image is)."""
    ranges = []
    for axis in range(3):
        count, room = max(1, round(side_mm / labels.spacing_mm[axis])), labels.shape[axis]
        start = int(np.clip(round(float(centre[axis]) - (count - 1) / 2), 0, max(0, room - count)))
        ranges.append((start, min(room, start + count)))
    return ranges[0], ranges[1], ranges[2]
