"""Where a body must lie so that its kidneys are those of a label map.

Comes in: a label map (kidney 1, tumour 2, cyst 3) in "LPS" order. Goes out: a frozen ``Fit``: origin and scale of the
body, and a trunk wide enough to hold every labelled voxel. It paints nothing.

Lengths are in the frame of the array itself: x falls along axis 0, y along axis 1, z rises along axis 2, zero at the
first voxel. So a false origin or an oblique affine in the file does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hilum.components import components_of
from hilum.errors import LabelError
from hilum.phantom.anatomy import Torso, draw_torso
from hilum.volume import Grid

HALF_SEPARATION_MM = 74.0  # from the midline to a kidney's centre, mean of 160 KiTS23 label maps
COARSE_MM = 3.0


@dataclass(frozen=True)
class Fit:
    """How the standard body is laid over a label map.

    Attributes:
        grid: the array's own frame, "LPS", the first voxel at zero.
        origin_mm: of the body in that frame.
        torso: with the scale.
        centres: of the kidneys by side (+1 right, -1 left), in body coordinates.
    """

    grid: Grid
    origin_mm: tuple[float, float, float]
    torso: Torso
    centres: dict[int, tuple[float, float, float]]


def fit_body(labels_XYZ: np.ndarray, spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> Fit:
    """Lay a body around the kidneys.

    Args:
        labels_XYZ: uint8 in "LPS" order.
        spacing_mm: along its axes.
        rng: random numbers for whatever the labels leave open.

    Raises:
        LabelError: no voxel is labelled.
    """
    a, b, c = labels_XYZ.shape
    grid = Grid((a, b, c), np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0]))
    steps = [max(1, round(COARSE_MM / s)) for s in spacing_mm]
    coarse = labels_XYZ[:: steps[0], :: steps[1], :: steps[2]]
    if not coarse.any():
        steps, coarse = [1, 1, 1], labels_XYZ
        if not coarse.any():
            raise LabelError("no voxel is labelled", wanted="kidneys to paint a body around")
    points = grid.world(np.argwhere(coarse > 0) * np.array(steps))
    kinds = coarse[coarse > 0]
    middle = grid.world((np.array(labels_XYZ.shape) - 1) / 2)
    x0, centres = _midline(coarse, kinds, points, float(middle[0]))
    sides = sorted(centres)
    separation = abs(centres[1][0] - centres[-1][0]) if len(sides) == 2 else 2 * HALF_SEPARATION_MM
    scale = float(np.clip(0.35 + 0.65 * separation / (2 * HALF_SEPARATION_MM), 0.9, 1.12))
    heights = [centres[s][2] for s in sides]
    z0 = max(heights) if max(heights) - min(heights) > 55 else float(np.mean(heights))
    y0 = float(np.mean([centres[s][1] for s in sides])) - 2.0
    # fields of view are set to the patient, with some room
    outer = rng.uniform(0.38, 0.44) * (labels_XYZ.shape[0] * spacing_mm[0]) / scale
    bulk = float(np.clip((outer - 140) / 44, 0.0, 1.2))
    torso = replace(draw_torso(rng, bulk), scale=round(scale, 4))
    body = (points - np.array([x0, y0, z0])) / scale
    ahead = _clear_of_spine(body)
    body[:, 1] += ahead
    torso, further = _wide_enough(torso, body)
    origin = (round(x0, 2), round(y0 - (ahead + further) * scale, 2), round(z0, 2))
    inside = {s: tuple(float(v) for v in (np.array(centres[s]) - origin) / scale) for s in sides}
    return Fit(grid, origin, torso, inside)  # type: ignore[arg-type]


def _clear_of_spine(body: np.ndarray) -> float:
    """By how much (mm) labels must lie further in front, so that what crosses the midline passes before the spine."""
    near = body[np.abs(body[:, 0]) < 24]
    if len(near) < 0.02 * len(body):
        return 0.0
    return float(np.clip(20 - np.percentile(near[:, 1], 5), 0, 45))


def _midline(
    coarse: np.ndarray, kinds: np.ndarray, points: np.ndarray, centre_x: float
) -> tuple[float, dict[int, tuple[float, float, float]]]:
    """x of the body's midline, and the centre of each side's kidney (of its masses where no kidney is labelled)."""
    pieces, count = components_of(coarse > 0)
    number = pieces[coarse > 0]
    sizes = np.bincount(number, minlength=count + 1)
    large = [i for i in range(1, count + 1) if sizes[i] > 0.05 * sizes.max()]
    middles = {i: float(points[number == i][:, 0].mean()) for i in large}
    right = [i for i in large if middles[i] > centre_x + 12]
    left = [i for i in large if middles[i] < centre_x - 12]
    if right and left:
        weight = [sum(sizes[i] * middles[i] for i in some) / sum(sizes[i] for i in some) for some in (right, left)]
        x0 = float(np.clip(0.7 * np.mean(weight) + 0.3 * centre_x, centre_x - 30, centre_x + 30))
    elif right or left:
        side = 1 if right else -1
        largest = max(right or left, key=lambda i: int(sizes[i]))
        x = middles[largest]
        beyond = (points[number == largest][:, 0] - centre_x) * -side > 20
        if beyond.mean() > 0.1:  # a horseshoe, or a mass that crosses the midline
            x = centre_x + side * HALF_SEPARATION_MM
        x0 = float(np.clip(centre_x, x - 95, x - 50) if side > 0 else np.clip(centre_x, x + 50, x + 95))
    else:
        x0 = centre_x  # one piece across the midline
    found: dict[int, tuple[float, float, float]] = {}
    for side in (1, -1):
        there = (points[:, 0] > x0) if side > 0 else (points[:, 0] <= x0)
        there &= np.isin(number, large)
        if there.sum() < 0.03 * len(points):
            continue
        kidney = there & (kinds == 1)
        x, y, z = points[kidney if kidney.sum() > 20 else there].mean(axis=0).tolist()
        found[side] = (x, y, z)
    return x0, found


def _wide_enough(torso: Torso, body: np.ndarray) -> tuple[Torso, float]:
    """The trunk, its cavity widened where labelled voxels would lie in the wall, and how much further in front they go.

    Both have limits: where they are reached, a mass pushes into the muscles, as some do.
    """
    x = torso.widened(body[:, 0].astype(np.float32), body[:, 2].astype(np.float32))
    y = (body[:, 1] + torso.kyphosis * np.clip((body[:, 2] + 50) / 100, -2.2, 2.2) ** 2).astype(np.float32)
    ahead, first = 0.0, torso
    for _ in range(60):
        distance = torso.cavity(x, y + np.float32(ahead))[0]
        worst = int(np.argmax(distance))
        if distance[worst] < -3:
            break
        across = abs(float(x[worst])) / torso.half_width
        forward = (float(y[worst]) + ahead - torso.middle) / torso.half_depth
        if forward < -0.55 and ahead < 24:
            ahead += 2.0
        elif across > abs(forward) and torso.half_width < first.half_width + 30:
            torso = replace(torso, half_width=torso.half_width + 3)
        elif forward > 0 and torso.front < first.front + 50:
            torso = replace(torso, front=torso.front + 3)
        else:
            break
    return torso, ahead
