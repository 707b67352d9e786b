"""Bending: a smooth field of displacements, to be added where ``spatial.resample`` reads.

Comes in: a ``Bend`` and a patch's shape. Goes out: displacements in voxels. The only chance in it is the bend's own
seed, so that the same bend gives the same field on every device.

Control points stand on an even grid and are moved at random; between them cubic B-splines interpolate (free-form
deformation: Rueckert et al., IEEE TMI 1999;18:712-721). The splines' weights are positive and sum to one, so no
displacement exceeds the largest of a control point, and the box that a patch needs is known before it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch

Triple = tuple[float, float, float]
# the displacements (3, planes, H, W), in voxels along D, H, W, of some of a patch's planes
Displacements = Callable[[slice], torch.Tensor]


@dataclass(frozen=True)
class Bend:
    """One random field.

    Attributes:
        distance_voxels: between control points along D, H, W; 0 along D means the same field in every slice.
        largest_voxels: of a control point's displacement along D, H, W; 0 along D where slices stay in their place.
        seed: of the control points.
    """

    distance_voxels: Triple
    largest_voxels: Triple
    seed: int

    @property
    def flat(self) -> bool:
        """Every slice is bent alike, within itself."""
        return self.distance_voxels[0] == 0 and self.largest_voxels[0] == 0


def displacements(bend: Bend, shape: tuple[int, int, int], device: torch.device) -> Displacements:
    """The field of a patch, worked out for some planes at a time so that it stays in the cache on a CPU."""
    weights = [spline_weights(n, step) for n, step in zip(shape, bend.distance_voxels, strict=True)]
    largest = np.array(bend.largest_voxels).reshape(3, 1, 1, 1)
    random = np.random.default_rng(bend.seed)
    points = random.uniform(-1, 1, (3, *(matrix.shape[1] for matrix in weights))) * largest
    # small copies that wait for nothing the device is doing
    coarse, along_d, along_h, along_w = (
        torch.from_numpy(array).to(device, non_blocking=True) for array in (points.astype(np.float32), *weights)
    )
    # autocast would make the products bf16 and the field a staircase
    with torch.autocast(device.type, enabled=False):
        slices = along_h @ (coarse @ along_w.T)

    def of(planes: slice) -> torch.Tensor:
        with torch.autocast(device.type, enabled=False):
            found: torch.Tensor = along_d[planes] @ slices.flatten(2)
        return found.view(3, -1, *shape[1:])

    return of


def spline_weights(n: int, distance: float) -> np.ndarray:
    """(n, control points): what each control point counts at each of n voxels; a single point if the distance is 0."""
    if distance == 0:
        return np.ones((n, 1), np.float32)
    place = np.arange(n) / distance
    below = place.astype(int)
    t = place - below
    basis = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    matrix = np.zeros((n, ceil((n - 1) / distance) + 4), np.float32)
    for k, values in enumerate(basis):
        matrix[np.arange(n), below + k] = values / 6
    return matrix
