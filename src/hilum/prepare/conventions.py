"""How another toolkit's model wants its scans, where that is not hilum's own way.

Comes in: a scan's grid or voxels and a plan's ``Conventions``. Goes out: in which order voxels are listed, which axis
is resampled to the nearest slice, which box is looked at, what intensities mean in this scan. Reads no file. The
defaults are hilum's own way, under which every function here changes nothing.

Rules for the names "nnunet" are those of nnU-Net v2 (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; its
``DefaultPreprocessor``, ``default_resampling`` and ``cropping`` modules).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from hilum.components import nonzero_box
from hilum.volume import INSIDE, Grid

ANISOTROPY = 3.0
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Conventions:
    """What a model was trained with.

    Attributes:
        axes: the order in which its arrays list voxels: axis codes, or "file" for the file's own order backwards (what
            SimpleITK gives, and nnU-Net trains on whatever the patient's position).
        transpose: the order in which those axes are then taken.
        clip_first: intensities are clipped before resampling, not after.
        rounded: prepared voxels are whole HU (int16); else they stay fractions (float32), twice as large.
        order: of the spline that resamples images: 3, or 1 (linear).
        nearest: "own" (``Plan.separate_z``), "off", or "nnunet": images and logits are resampled to the nearest slice
            along the axis that is more than three times as coarse as the finest, in the scan or else in the plan.
        crop: "no", or "nonzero": only the box of voxels that are not 0 is looked at.
        intensities: "plan", or "scan": each scan's own mean and deviation; or "scan_nonzero": those of its voxels that
            are not 0 (with the holes among them), the others becoming 0.
        padding: what lies around scans smaller than a patch: "air", or "mean" (0 after normalisation).
        window: how voxels of a tile are weighted: "gaussian", "nnunet" (its centre at ``n // 2``) or "constant".
    """

    axes: str = INSIDE
    transpose: tuple[int, ...] = (0, 1, 2)
    clip_first: bool = False
    rounded: bool = True
    order: int = 3
    nearest: Literal["own", "off", "nnunet"] = "own"
    crop: Literal["no", "nonzero"] = "no"
    intensities: Literal["plan", "scan", "scan_nonzero"] = "plan"
    padding: Literal["air", "mean"] = "air"
    window: Literal["gaussian", "nnunet", "constant"] = "gaussian"

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Conventions:
        """What ``asdict`` wrote.

        Raises:
            TypeError: an unknown key.
        """
        values: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in table.items()}
        return cls(**values)


OWN = Conventions()


def inside_codes(grid: Grid, conventions: Conventions) -> str:
    """The axis codes of the array that the network sees: ``"SPL"`` in hilum's own way."""
    codes = grid.codes[::-1] if conventions.axes == "file" else conventions.axes
    return "".join(codes[axis] for axis in conventions.transpose)


def nearest_axis(scan_mm: Sequence[float], plan_mm: Sequence[float], conventions: Conventions) -> int | None:
    """The axis along which slices are not blended, or None.

    nnU-Net: where the coarsest spacing of the scan (or else of the plan) is more than three times the finest, its axis;
    none if two axes are equally coarse.
    """
    if conventions.nearest != "nnunet":
        return None
    for spacing in (scan_mm, plan_mm):
        if max(spacing) / min(spacing) > ANISOTROPY:
            coarsest = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def box_to_look_at(array: np.ndarray, conventions: Conventions) -> Box | None:
    """The box that is not left aside, or None where that is everything (or nothing is there at all)."""
    if conventions.crop == "no":
        return None
    box = nonzero_box(array)
    return None if box is None or all(part == slice(0, n) for part, n in zip(box, array.shape, strict=True)) else box


def own_intensities(array: np.ndarray, conventions: Conventions) -> tuple[np.ndarray, float, float]:
    """The voxels to resample, and this scan's mean and deviation (of float64 sums, at least 1e-8).

    With "scan_nonzero" voxels outside become the mean, so that they are 0 after normalisation.
    """
    if conventions.intensities == "scan":
        return array, *_moments(array, None)
    mask = ndimage.binary_fill_holes(array != 0)
    mean, deviation = _moments(array, mask if mask.any() else None)
    return np.where(mask, array, np.float32(mean)), mean, deviation


def _moments(array: np.ndarray, mask: np.ndarray | None) -> tuple[float, float]:
    """Mean and deviation (at least 1e-8) of the voxels in a mask, slice by slice: NumPy's own copies all as float64."""

    def total(function: Callable[[np.ndarray], np.ndarray]) -> float:
        parts = (plane if mask is None else plane[mask[z]] for z, plane in enumerate(array))
        return math.fsum(float(function(part.astype(np.float64)).sum()) for part in parts)

    count = array.size if mask is None else int(np.count_nonzero(mask))
    mean = total(lambda part: part) / count
    return mean, max(math.sqrt(total(lambda part: (part - mean) ** 2) / count), 1e-8)
