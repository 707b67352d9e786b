"""Two dates of one patient laid on each other by their organs.

Comes in: the label maps of two dates and the organs that both hold. Goes out: for each organ and side a rigid motion
from the earlier date's world (mm, RAS+) to the later one's, and how well the organ then fits. It knows no lesions.

Each organ, its lesions included, becomes a signed distance map on a 3 mm raster, clipped at 12 mm, so that a surface
that grew in one place pulls little. SimpleITK first moves all organs together (a turn of the patient, another table
height), then each organ by itself (kidneys move with the breath), by the mean squared difference of the maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import edt
import numpy as np
from scipy.ndimage import affine_transform

from hilum.labels import LabelScheme
from hilum.volume import Volume

RASTER_MM = 3.0
REACH_MM = 12.0
_MARGIN_MM = 30.0
Organ = tuple[str, str]  # name, side


@dataclass(frozen=True)
class Motion:
    """A rigid motion of world points, earlier date to later date: ``points @ turn.T + shift_mm``.

    Attributes:
        turn: (3, 3) rotation.
        shift_mm: (3,).
        dice: of the organ's voxels after the motion (1 fits wholly); None where nothing was registered.
        centre_mm: (3,) the organ's centre at the earlier date.
    """

    turn: np.ndarray
    shift_mm: np.ndarray
    dice: float | None
    centre_mm: np.ndarray

    def __call__(self, points_mm: Any) -> np.ndarray:
        """Earlier world points (..., 3) to where they are now."""
        moved: np.ndarray = np.asarray(points_mm, float) @ self.turn.T + self.shift_mm
        return moved

    @property
    def degrees(self) -> float:
        """Angle of the turn."""
        return float(np.degrees(np.arccos(np.clip((np.trace(self.turn) - 1) / 2, -1, 1))))

    @property
    def moved_mm(self) -> float:
        """How far the organ's centre moved."""
        return float(np.linalg.norm(self(self.centre_mm) - self.centre_mm))


STILL = Motion(np.eye(3), np.zeros(3), None, np.zeros(3))


def register_organs(
    now: Volume,
    before: Volume,
    scheme: LabelScheme,
    organs_now: Sequence[Mapping[str, Any]],
    organs_before: Sequence[Mapping[str, Any]],
) -> dict[Organ, Motion]:
    """A motion for each organ and side that both dates show.

    Args:
        now, before: label maps, any axis order and grid.
        scheme: of both.
        organs_now, organs_before: ``measurements["organs"]`` of each.
    """
    there = {(x["name"], x["side"]): np.asarray(x["centroid_mm"], float) for x in organs_before}
    both = {(x["name"], x["side"]): x for x in organs_now if (x["name"], x["side"]) in there}
    if not both:
        return {}
    here = {key: np.asarray(x["centroid_mm"], float) for key, x in both.items()}
    mask_now, mask_before = _Raster(now, scheme, here), _Raster(before, scheme, there)
    all_now, all_before = mask_now.of(tuple(both)), mask_before.of(tuple(both))
    if not all_now.any() or not all_before.any():
        return {}
    rough = _register(all_now, mask_now.origin_mm, all_before, mask_before.origin_mm, None)
    motions = {}
    for key in both:
        one_now, one_before = mask_now.of((key,)), mask_before.of((key,))
        if not one_now.any() or not one_before.any():
            continue
        moved = _register(one_now, mask_now.origin_mm, one_before, mask_before.origin_mm, rough)
        fits = [
            _fitted(motion, one_now, mask_now.origin_mm, one_before, mask_before.origin_mm, there[key])
            for motion in (rough, moved)
        ]
        motions[key] = max(fits, key=lambda motion: motion.dice or 0.0)
    return motions


class _Raster:
    """A label map on a raster of 3 mm, axes x, y, z of the world; a voxel belongs to the nearest organ of its kind."""

    def __init__(self, volume: Volume, scheme: LabelScheme, centres_mm: Mapping[Organ, np.ndarray]):
        hits = [np.flatnonzero(volume.array.any(axis=o)) for o in ((1, 2), (0, 2), (0, 1))]
        corners = np.array(np.meshgrid(*[(h[0], h[-1]) for h in hits])).reshape(3, -1).T
        world = volume.world(corners)
        low, high = world.min(axis=0) - _MARGIN_MM, world.max(axis=0) + _MARGIN_MM
        shape = tuple(int(n) for n in np.ceil((high - low) / RASTER_MM) + 1)
        inverse = np.linalg.inv(volume.affine[:3, :3])
        self.origin_mm = low
        self.labels = affine_transform(
            volume.array,
            inverse * RASTER_MM,
            inverse @ (low - volume.affine[:3, 3]),
            output_shape=shape,
            order=0,
            mode="constant",
            cval=0,
        )
        self._scheme, self._centres = scheme, centres_mm

    def of(self, organs: Sequence[Organ]) -> np.ndarray:
        """Voxels of these organs, lesions included."""
        mask = np.zeros(self.labels.shape, bool)
        for name in {name for name, _ in organs}:
            whole = np.isin(self.labels, self._scheme.of(name))
            places = {key: centre for key, centre in self._centres.items() if key[0] == name}
            wanted = [key for key in organs if key[0] == name]
            if len(places) > len(wanted):
                voxels = np.argwhere(whole)
                world = voxels * RASTER_MM + self.origin_mm
                away = np.stack([np.linalg.norm(world - centre, axis=1) for centre in places.values()])
                mine = np.isin(away.argmin(axis=0), [list(places).index(key) for key in wanted])
                mask[tuple(voxels[mine].T)] = True
            else:
                mask |= whole
        return mask


def _register(
    now: np.ndarray, now_mm: np.ndarray, before: np.ndarray, before_mm: np.ndarray, start: Motion | None
) -> Motion:
    """The motion that lays ``before`` on ``now``."""
    sitk: Any = import_module("SimpleITK")
    fixed, moving = _image(now, now_mm), _image(before, before_mm)
    if start is None:
        first = sitk.Euler3DTransform(
            sitk.CenteredTransformInitializer(
                fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
            )
        )
        a, b = (np.argwhere(m).mean(axis=0) * RASTER_MM + o for m, o in ((now, now_mm), (before, before_mm)))
        first.SetCenter(a.tolist())
        first.SetTranslation((b - a).tolist())
    else:
        centre = np.argwhere(now).mean(axis=0) * RASTER_MM + now_mm
        first = sitk.Euler3DTransform()
        first.SetMatrix(start.turn.T.ravel().tolist())  # SimpleITK maps the other way: later to earlier
        first.SetCenter(centre.tolist())
        earlier = (centre - start.shift_mm) @ start.turn
        first.SetTranslation((earlier - centre).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.01, 120, 0.6, 1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(first, inPlace=True)
    if start is None:
        method.SetShrinkFactorsPerLevel([3, 1])
        method.SetSmoothingSigmasPerLevel([0, 0])
    method.SetNumberOfThreads(1)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # no overlap: the maps lie too far apart to tell a direction
        return STILL if start is None else start
    turn = np.array(first.GetMatrix()).reshape(3, 3)
    centre, shift = np.array(first.GetCenter()), np.array(first.GetTranslation())
    # earlier = turn (later - centre) + centre + shift, so later = turn^T (earlier - centre - shift) + centre
    return Motion(turn.T, centre - turn.T @ (centre + shift), None, np.zeros(3))


def _image(mask: np.ndarray, origin_mm: np.ndarray) -> Any:
    """Signed distance to the surface in mm, positive inside, clipped; array axes x, y, z."""
    sitk: Any = import_module("SimpleITK")
    distance = edt.sdf(mask, anisotropy=(RASTER_MM,) * 3, parallel=1)
    image = sitk.GetImageFromArray(np.clip(distance, -REACH_MM, REACH_MM).astype(np.float32).transpose(2, 1, 0))
    image.SetSpacing((RASTER_MM,) * 3)
    image.SetOrigin(origin_mm.tolist())
    return image


def _fitted(
    motion: Motion, now: np.ndarray, now_mm: np.ndarray, before: np.ndarray, before_mm: np.ndarray, centre: np.ndarray
) -> Motion:
    """The motion with the Dice of the organ after it."""
    points = np.argwhere(before) * RASTER_MM + before_mm
    index = np.round((motion(points) - now_mm) / RASTER_MM).astype(int)
    inside = ((index >= 0) & (index < now.shape)).all(axis=1)
    common = int(now[tuple(index[inside].T)].sum())
    return Motion(motion.turn, motion.shift_mm, 2.0 * common / (len(points) + int(now.sum())), centre)
