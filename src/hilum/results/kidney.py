"""One kidney: its sinus, segmented or estimated, and its own directions.

Comes in: a kidney's ``Part`` and, where the scheme has one, the label of its sinus. Goes out: a ``Kidney`` with masks
and directions in which lesions are placed. It computes no score.

The hull meant here is that of the parenchyma without thin rims around lesions (see ``contour``).

The sinus. Most label maps have no sinus. It is then estimated from the shape: the space inside the convex hull of the
parenchyma that no label fills, and of it the largest connected piece deeper than ``DEPTH_MM`` below the hull's surface
whose centre lies medial of the hull's centre (the concavity of the hilum). How sure that is, is told by two more
masks: ``wide`` adds the free voxels of the hull within ``DEPTH_MM`` of it, ``narrow`` keeps only what lies deeper than
``DEEP_MM``. A kidney label that includes fat and vessels of the hilum leaves little or nothing to find, and says so.

Directions. ``up`` is the longest principal axis of the hull that is nearer than 60 degrees to the body's axis,
``medial`` points from the hull's centre to the sinus (to the body's middle without one) at right angles to ``up``,
``front`` is at right angles to both. The polar lines are where the sinus begins and ends along ``up`` (5th and 95th
percentile of its voxels); without a sinus, thirds of the kidney's length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cc3d
import edt
import numpy as np
from scipy.spatial import cKDTree

from hilum.components import components_of
from hilum.labels import LabelScheme
from hilum.results.distances import within
from hilum.results.inside import Inside, Part
from hilum.results.shape import moments, own_axes
from hilum.volume import Grid

DEPTH_MM, DEEP_MM = 3.0, 6.0
SMALLEST_SINUS_ML = 0.3
SINUS_WORDS = ("sinus", "collecting", "pelvis", "pelvi")


@dataclass(frozen=True)
class Sinus:
    """The renal sinus in the box of its kidney.

    Attributes:
        mask_DHW: the sinus.
        narrow_DHW: what is surely sinus; may be empty.
        wide_DHW: what may be sinus.
        source: "segmented" or "estimated".
    """

    mask_DHW: np.ndarray
    narrow_DHW: np.ndarray
    wide_DHW: np.ndarray
    source: str


@dataclass(frozen=True)
class Kidney:
    """A kidney with its directions.

    Attributes:
        part: the label's voxels.
        sinus: None if none was found.
        centre_mm: (3,) world mm, centroid of the hull of the parenchyma.
        up: (3,) unit, towards the upper pole.
        medial: (3,) unit, towards the hilum.
        front: (3,) unit, towards the front of the body.
        polar_mm: positions along ``up`` (dot products with world mm) of the lower and the upper polar line.
        polar_basis: "sinus" or "thirds".
        cut: the edge of the scan cuts the kidney: its centre and its poles are not known.
    """

    part: Part
    sinus: Sinus | None
    centre_mm: np.ndarray
    up: np.ndarray
    medial: np.ndarray
    front: np.ndarray
    polar_mm: tuple[float, float]
    polar_basis: str
    cut: bool = False

    @cached_property
    def solid_DHW(self) -> np.ndarray:
        """Kidney, lesions and sinus: what lies inside the capsule."""
        return self.part.whole_DHW if self.sinus is None else self.part.whole_DHW | self.sinus.mask_DHW

    @cached_property
    def outside(self) -> tuple[np.ndarray, cKDTree]:
        """(N, 3) indices of the voxels just outside but for the sinus, and a tree over their world positions."""
        if self.sinus is None:
            return self.part.outside
        beyond = self.part.outside[0]
        there = np.clip(beyond, 0, np.array(self.sinus.mask_DHW.shape) - 1)
        index = beyond[~self.sinus.mask_DHW[tuple(there.T)]]
        return index, cKDTree(self.part.grid.world(index))


def sinus_label_of(scheme: LabelScheme) -> tuple[int, ...]:
    """Values of labels that name the renal sinus or the collecting system."""
    return tuple(x.value for x in scheme.labels if any(word in x.name.lower() for word in SINUS_WORDS))


def kidney_of(inside: Inside, part: Part) -> Kidney | None:
    """A kidney's frame; None if the part has no parenchyma."""
    if not part.own_DHW.any():
        return None
    hull_DHW = part.hull_DHW
    grid = part.grid
    centre_mm = grid.world(moments(hull_DHW)[0])
    values = sinus_label_of(inside.scheme)
    given = np.isin(inside.labels_DHW[part.box], values) if values else None
    if given is not None and given.any():
        sinus: Sinus | None = Sinus(given, given, given, "segmented")
    else:
        sinus = _estimated(part, centre_mm)
    axes = own_axes(hull_DHW, grid)
    upright = [d for d in axes.directions if abs(d[2]) >= 0.5] or [np.array([0.0, 0.0, 1.0])]
    up = upright[0] * np.sign(upright[0][2])
    if sinus is not None:
        towards = grid.world(moments(sinus.mask_DHW)[0]) - centre_mm
    else:
        towards = np.array([{"right": -1.0, "left": 1.0}.get(part.side, 1.0), 0.0, 0.0])
    medial = towards - (towards @ up) * up
    if np.linalg.norm(medial) < 1e-6:
        medial = np.cross(up, [0.0, 1.0, 0.0])
    medial /= np.linalg.norm(medial)
    front = np.cross(up, medial)
    front *= 1.0 if front[1] >= 0 else -1.0
    if sinus is not None:
        along = along_mm(sinus.mask_DHW, grid, up)
        low, high = (float(x) for x in np.percentile(along, (5, 95)))
        basis = "sinus"
    else:
        along = along_mm(hull_DHW, grid, up)
        first, last = float(along.min()), float(along.max())
        low, high = first + (last - first) / 3, last - (last - first) / 3
        basis = "thirds"
    return Kidney(part, sinus, centre_mm, up, medial, front, (low, high), basis, inside.at_edge(part.tight))


def _estimated(part: Part, centre_mm: np.ndarray) -> Sinus | None:
    """The free concavity of the hilum, or None."""
    hull_DHW, grid = part.hull_DHW, part.grid
    free = hull_DHW & ~part.whole_DHW
    if free.sum() * grid.voxel_volume_mm3 / 1000 < SMALLEST_SINUS_ML:
        return None
    depth_mm = edt.edt(np.pad(hull_DHW, 1), anisotropy=grid.spacing_mm)[1:-1, 1:-1, 1:-1]
    deep, count = components_of(free & (depth_mm > DEPTH_MM), 6)
    if count == 0:
        return None
    facts = cc3d.statistics(deep)
    medial_x = {"right": -1.0, "left": 1.0}.get(part.side, 0.0)
    best, most = 0, SMALLEST_SINUS_ML * 1000 / grid.voxel_volume_mm3
    for number in range(1, count + 1):
        voxels = int(facts["voxel_counts"][number])
        inwards = (grid.world(facts["centroids"][number]) - centre_mm)[0] * medial_x
        if voxels > most and inwards >= 0:
            best, most = number, voxels
    if best == 0:
        return None
    mask = deep == best
    wide = mask | (free & within(mask, grid, DEPTH_MM))
    return Sinus(mask, mask & (depth_mm > DEEP_MM), wide, "estimated")


def along_mm(mask_DHW: np.ndarray, grid: Grid, direction: np.ndarray) -> np.ndarray:
    """(N,) the dot product of each voxel centre of a mask with a direction, in mm."""
    steps = direction @ grid.affine[:3, :3]
    z, y, x = (np.arange(n) * step for n, step in zip(mask_DHW.shape, steps, strict=True))
    placed = (float(direction @ grid.affine[:3, 3]) + z[:, None, None]) + y[:, None] + x
    found: np.ndarray = placed[mask_DHW]
    return found
