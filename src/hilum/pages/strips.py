"""A scan in small pictures that a page can carry: a strip of axial slices, its labels, and one to recognise it by.

Comes in: a scan, a label map, either or both. Goes out: encoded pictures as data: URIs with what they show. The labels
are a picture of their own, transparent where nothing is labelled, so that a page can lay them over the scan or not.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from hilum.labels import Label, LabelScheme
from hilum.pages.charts import COLOURS
from hilum.pages.slices import View, best_slices, body_box, grey, label_box
from hilum.volume import Volume, require_same_grid

_GROUND = (16, 22, 26)  # where there is no scan
_OVER = 0.5  # how much the labels cover the scan in the small picture
QUALITY = 62


def strip_of(
    scan: Volume | None, labels: Volume | None, scheme: LabelScheme | None, tiles: int, side: int
) -> dict[str, Any]:
    """Axial slices, evenly from feet to head, the most telling one among them.

    Args:
        scan: HU, or None; in any axis order.
        labels: uint8 on the same grid, or None.
        scheme: gives colours and says which slice tells most; without, labels are coloured by their number.
        tiles: slices, at most.
        side: the longer side of a slice in pixels.

    Returns:
        ``{"slices", "of", "start", "width", "height", "ct", "labels", "thumb"}``: which slices (from 0 at the feet) of
        how many, the place in the strip of the most telling, the size of a tile; the rest are data: URIs or "". Tiles
        stand below each other.

    Raises:
        GeometryError: different grids.
    """
    scan = None if scan is None else scan.oriented()
    labels = None if labels is None else labels.oriented()
    if scan is not None and labels is not None:
        require_same_grid(scan, labels)
    whole = scan if scan is not None else labels
    assert whole is not None
    boxes = [body_box(scan)] if scan is not None else []
    if labels is not None and (scan is None or labels.array.any()):
        boxes.append(label_box(labels, 8.0 if scan is not None else 30.0))
    a, b, c = ((min(box[i][0] for box in boxes), max(box[i][1] for box in boxes)) for i in range(3))
    scheme = scheme or _numbered(labels)
    marked = labels is not None and scheme is not None and bool(labels.array.any())
    best = best_slices(labels.array, scheme)[0] if marked and labels is not None and scheme is not None else None
    middle = best if best is not None else (a[0] + a[1]) // 2
    even = np.unique(np.round(np.linspace(a[0], a[1] - 1, tiles)).astype(int))
    nearest = int(np.abs(even - middle).argmin())
    even[nearest] = middle
    chosen = sorted({int(index) for index in even})
    height_mm, width_mm = ((n[1] - n[0]) * whole.spacing_mm[i] for i, n in ((1, b), (2, c)))
    width = max(1, round(side * min(1.0, width_mm / height_mm)))
    views = [View("axial", index, (a, b, c), whole.spacing_mm, width) for index in chosen]
    greys = [_grey_tile(view, scan) for view in views] if scan is not None else []
    maps = [_label_tile(view, labels) for view in views] if labels is not None else []
    start = chosen.index(middle)
    colours = _palette(scheme)
    ground = greys[start] if greys else None
    over = maps[start] if maps else None
    width, height = views[0].size
    return {
        "slices": chosen,
        "of": whole.shape[0],
        "start": start,
        "width": width,
        "height": height,
        "ct": _jpeg(Image.fromarray(np.concatenate(greys))) if greys else "",
        "labels": _png(np.concatenate(maps), colours) if maps else "",
        "thumb": _thumb(ground, over, colours, (width, height)),
    }


def _numbered(labels: Volume | None) -> LabelScheme | None:
    """A scheme of bare numbers for a map without one."""
    values = [] if labels is None else [int(v) for v in np.unique(labels.array) if v]
    if not values:
        return None
    made = tuple(Label(v, f"label {v}", colour=COLOURS[i % len(COLOURS)]) for i, v in enumerate(values))
    return LabelScheme("numbers", made, ())


def _grey_tile(view: View, scan: Volume) -> np.ndarray:
    picture = np.clip(view.stretched(grey(view.cut(scan.array))), 0.0, 1.0)
    tile: np.ndarray = np.round(picture * 255).astype(np.uint8)
    return tile


def _label_tile(view: View, labels: Volume) -> np.ndarray:
    """(height, width) uint8 by nearest neighbours."""
    image = Image.fromarray(np.ascontiguousarray(view.cut(labels.array), np.uint8))
    tile: np.ndarray = np.asarray(image.resize(view.size, Image.Resampling.NEAREST))
    return tile


def _palette(scheme: LabelScheme | None) -> np.ndarray:
    """(256, 3) uint8."""
    table = np.full((256, 3), 153, np.uint8)
    for label in scheme.labels if scheme is not None else ():
        table[label.value] = [int(label.colour[i : i + 2], 16) for i in (1, 3, 5)]
    return table


def _thumb(ground: np.ndarray | None, over: np.ndarray | None, colours: np.ndarray, size: tuple[int, int]) -> str:
    width, height = size
    if ground is None:
        rgb = np.full((height, width, 3), _GROUND, np.float32)
    else:
        rgb = np.repeat(ground[..., None], 3, axis=2).astype(np.float32)
    if over is not None:
        share = np.where(over > 0, 1.0 if ground is None else _OVER, 0.0)[..., None]
        rgb += share * (colours[over] - rgb)
    image = Image.fromarray(np.round(rgb).astype(np.uint8))
    image.thumbnail((128, 128), Image.Resampling.BICUBIC)
    return _jpeg(image)


def _jpeg(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _png(labels: np.ndarray, colours: np.ndarray) -> str:
    image = Image.frombytes("P", (labels.shape[1], labels.shape[0]), labels.tobytes())
    image.putpalette(colours.tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, transparency=0)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
