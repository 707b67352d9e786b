"""The organs and lesions of a case in three dimensions: meshes for the page's own viewer, and a still picture.

Comes in: a label map with numbered lesions. Goes out: a ``Scene``: JSON that ``templates/scene.js`` draws (WebGL, no
library, no network), and the same view from the front as a picture for paper, for readers without WebGL and for
thumbnails. An organ is drawn without its lesions and lets light through; lesions are solid.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from hilum.labels import LabelScheme
from hilum.pages import strings
from hilum.pages.figures import Picture
from hilum.pages.meshes import Mesh, surface
from hilum.results.lesion_map import LesionMap

ORGAN_RASTER_MM, LESION_RASTER_MM = 3.0, 2.0
MOST_LESIONS = 40
ORGAN_ALPHA = 0.42
GROUND = (16, 22, 26)
_LIGHT = np.array([-0.35, 0.45, 0.82])  # screen: right, up, towards the reader


@dataclass(frozen=True)
class Part:
    """One surface of a scene."""

    name: str
    colour: str
    solid: bool
    mesh: Mesh


@dataclass(frozen=True)
class Scene:
    """What the viewer draws.

    Attributes:
        parts: organs first.
        json: for ``scene.js``: ``size`` (mm) and ``parts`` with name, colour, solid, points, triangles.
        still: from the front, the patient's right on the left.
    """

    parts: tuple[Part, ...]
    json: str
    still: Picture


def scene(
    numbered: LesionMap | None, scheme: LabelScheme, lesions: Any, size: tuple[int, int] = (880, 560)
) -> Scene | None:
    """The scene of a case; None if there is nothing to show.

    Args:
        numbered: the label map with its numbered lesions.
        scheme: what the labels mean.
        lesions: ``measurements["lesions"]``.
        size: of the still picture in pixels.
    """
    if numbered is None:
        return None
    parts = [*_organs(numbered, scheme), *_lesions(numbered, scheme, lesions)]
    if not parts:
        return None
    low = np.min([part.mesh.points_mm.min(axis=0) for part in parts], axis=0)
    high = np.max([part.mesh.points_mm.max(axis=0) for part in parts], axis=0)
    size_mm = float((high - low).max()) or 1.0
    listed = []
    for part in parts:
        points, triangles = part.mesh.encoded(low, size_mm)
        entry = {
            "name": part.name,
            "colour": part.colour,
            "solid": part.solid,
            "points": points,
            "triangles": triangles,
        }
        listed.append(entry)
    extent = ((high - low) / size_mm).tolist()
    text = json.dumps({"size": size_mm, "extent": extent, "parts": listed}, ensure_ascii=True)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # it stands inside <script>
    names = strings.listed([part.name for part in parts[:6]])
    alt = strings.TEXT["surfaces_alt"].format(names if len(parts) <= 6 else strings.TEXT["and_more"].format(names))
    image = Image.fromarray(_rendered(parts, size))
    return Scene(tuple(parts), text, _jpeg(image, strings.TEXT["surfaces"], alt))


def _organs(numbered: LesionMap, scheme: LabelScheme) -> list[Part]:
    parts = []
    for label in scheme.labels:
        mask = numbered.labels_DHW == label.value
        if label.is_lesion or not mask.any():
            continue
        mesh = surface(mask, numbered.grid, ORGAN_RASTER_MM)
        if mesh is not None:
            parts.append(Part(label.name, label.colour, False, mesh))
    return parts


def _lesions(numbered: LesionMap, scheme: LabelScheme, lesions: Any) -> list[Part]:
    parts = []
    for lesion in sorted(sorted(lesions, key=lambda x: -x["volume_ml"])[:MOST_LESIONS], key=lambda x: x["id"]):
        box = numbered.box(int(lesion["id"]))
        if box is None:
            continue
        mask = numbered.ids_DHW[box] == lesion["id"]
        grid = numbered.grid.cropped([part.start for part in box], [part.stop for part in box])
        raster = float(np.clip(lesion["equivalent_sphere_mm"] / 16, 0.5, 1.6 * LESION_RASTER_MM))
        mesh = surface(mask, grid, raster)
        if mesh is not None:
            colour = scheme.label(lesion["value"]).colour
            parts.append(Part(f"{lesion['label']} {lesion['id']}", colour, True, mesh))
    return parts


def _rendered(parts: list[Part], size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) uint8: solid parts, and over them the nearest surface of what lets light through."""
    width, height = size
    points = np.concatenate([part.mesh.points_mm for part in parts])
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    scale = 0.9 * min(width / max(high[0] - low[0], 1.0), height / max(high[2] - low[2], 1.0))
    layers = []
    for solid in (True, False):
        colour = np.zeros((height * width, 3), np.float32)
        depth = np.full(height * width, -np.inf, np.float32)
        for part in parts:
            if part.solid == solid:
                _splat(part, middle, scale, size, colour, depth)
        layers.append((colour, depth))
    ground = np.broadcast_to(np.array(GROUND, np.float32) / 255, (height * width, 3))
    (solid_colour, solid_depth), (soft_colour, soft_depth) = layers
    picture = np.where(np.isfinite(solid_depth)[:, None], solid_colour, ground)
    front = soft_depth > solid_depth
    alpha = np.where(np.isfinite(solid_depth) & front, ORGAN_ALPHA, np.where(front, 0.86, 0.0))[:, None]
    picture = picture + alpha * (soft_colour - picture)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8).reshape(height, width, 3)


def _splat(
    part: Part, middle: np.ndarray, scale: float, size: tuple[int, int], colour: np.ndarray, depth: np.ndarray
) -> None:
    """Points on every triangle, closer together than pixels; the nearest one is what a pixel shows."""
    width, height = size
    turned = (part.mesh.points_mm - middle)[:, [0, 2, 1]] * [-1, 1, 1]  # right of the screen, up, to the reader
    normals = part.mesh.normals()[:, [0, 2, 1]] * [-1, 1, 1]
    facing = normals[part.mesh.triangles].mean(axis=1)[:, 2] > -0.2
    corners, around = turned[part.mesh.triangles[facing]], normals[part.mesh.triangles[facing]]
    if len(corners) == 0:
        return
    edge = np.linalg.norm(np.diff(corners[:, [0, 1, 2, 0], :2], axis=1), axis=2).max(axis=1) * scale
    for steps in np.unique(np.minimum(np.ceil(edge / 4) * 4 + 2, 64)).astype(int):
        chosen = np.minimum(np.ceil(edge / 4) * 4 + 2, 64) == steps
        a, b = (grid.ravel() for grid in np.meshgrid(np.arange(steps + 1), np.arange(steps + 1)))
        share = np.stack([a, b, steps - a - b], axis=1)[a + b <= steps] / steps
        place = np.einsum("sk,tkx->tsx", share, corners[chosen]).reshape(-1, 3)
        normal = np.einsum("sk,tkx->tsx", share, around[chosen]).reshape(-1, 3)
        x = (place[:, 0] * scale + width / 2).astype(int).clip(0, width - 1)
        y = (height / 2 - place[:, 1] * scale).astype(int).clip(0, height - 1)
        pixel = y * width + x
        order = np.lexsort((place[:, 2], pixel))
        last = np.flatnonzero(np.diff(pixel[order], append=-1))
        best = order[last]
        nearer = place[best, 2] > depth[pixel[best]]
        best = best[nearer]
        depth[pixel[best]] = place[best, 2]
        colour[pixel[best]] = _shade(part.colour, normal[best])


def _shade(colour: str, normals: np.ndarray) -> np.ndarray:
    """Colour under one light and a little rim, as ``scene.js`` does it."""
    base = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    unit = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    light = np.clip(unit @ (_LIGHT / np.linalg.norm(_LIGHT)), 0, 1)[:, None]
    shine = light**24
    lit: np.ndarray = base * (0.36 + 0.64 * light) + 0.22 * shine
    return lit


def thumbnail(picture: Picture, width: int = 220) -> bytes:
    """A small JPEG of a picture."""
    image = Image.open(io.BytesIO(picture.data)).resize(
        (width, round(width * picture.height / picture.width)), Image.Resampling.LANCZOS
    )
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return stream.getvalue()


def blank(size: tuple[int, int] = (880, 560)) -> Picture:
    """The ground alone: the thumbnail of an empty label map."""
    return _jpeg(Image.new("RGB", size, GROUND), strings.TEXT["surfaces"], strings.TEXT["nothing_alt"])


def _jpeg(image: Image.Image, title: str, alt: str) -> Picture:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88, subsampling=0)
    return Picture(title, alt, stream.getvalue(), "image/jpeg", *image.size)
