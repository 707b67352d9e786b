"""What the model before this one of a cascade found: more channels of a patch, spoilt a little while learning.

Comes in: class indices of the truth and of the earlier model in one box; random numbers. Goes out: one channel of zeros
and ones for each label of the earlier model. It knows no network and no files.

Both label maps travel as one array of integers (``packed``), so that they are turned, bent and mirrored alike. Then the
earlier one is changed with the probabilities and ranges of nnU-Net v2's trainer, so that the network learns not to
trust it: in 4 of 10 patches each label, by chance of one half, is dilated, eroded, opened or closed by a ball of 1 to 8
voxels, and what grows takes its voxels from the other labels; in 2 of 10 each label, by chance of one half, loses one
of its components that fill less than 15 % of the patch. Beyond the patch nothing is known, so that nothing is eroded
from there.

Shapes: (D, H, W) of a patch; K labels of the earlier model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from hilum.components import component_sizes, components_of

SHAPE_PROBABILITY, REMOVAL_PROBABILITY = 0.4, 0.2
LABEL_PROBABILITY = 0.5
RADIUS_VOXELS = (1.0, 8.0)
LARGEST_SHARE = 0.15
_BITS = 8


class EarlierLike(Protocol):
    """What batches need of the earlier model's findings (``prepare.earlier.EarlierStore``)."""

    @property
    def labels(self) -> int:
        """How many labels the earlier model has, K."""
        ...

    def classes(self, name: str) -> np.ndarray:
        """(D, H, W) uint8 class indices on the prepared grid of a case."""
        ...


@dataclass(frozen=True)
class EarlierParameters:
    """How one patch's earlier labels are spoilt.

    Attributes:
        shapes: class index, name of ``SHAPES`` and radius in voxels, in the order in which they happen.
        removals: class index, and which of its components goes: 0 is the first, just below 1 the last.
    """

    shapes: tuple[tuple[int, str, float], ...] = ()
    removals: tuple[tuple[int, float], ...] = ()


def packed(labels_DHW: np.ndarray, earlier_DHW: np.ndarray) -> np.ndarray:
    """Both as one array of int32."""
    return labels_DHW.astype(np.int32) | (earlier_DHW.astype(np.int32) << _BITS)


def unpacked(both_DHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The truth, and what the earlier model found."""
    return both_DHW & (2**_BITS - 1), both_DHW >> _BITS


def draw_earlier(labels: int, generator: np.random.Generator) -> EarlierParameters:
    """Parameters for one patch.

    Args:
        labels: of the earlier model, K.
        generator: NumPy's random numbers.
    """
    shapes: list[tuple[int, str, float]] = []
    removals: list[tuple[int, float]] = []
    if generator.random() < SHAPE_PROBABILITY:
        for index in _some(labels, generator):
            name = list(SHAPES)[int(generator.integers(len(SHAPES)))]
            shapes.append((index, name, float(generator.uniform(*RADIUS_VOXELS))))
    if generator.random() < REMOVAL_PROBABILITY:
        removals = [(index, float(generator.random())) for index in _some(labels, generator)]
    return EarlierParameters(tuple(shapes), tuple(removals))


def channels(
    earlier_DHW: torch.Tensor, labels: int, parameters: EarlierParameters = EarlierParameters()
) -> torch.Tensor:
    """One channel for each label.

    Args:
        earlier_DHW: class indices, integers; 0 is background.
        labels: K.
        parameters: how they are spoilt.

    Returns:
        (K, D, H, W) booleans; no voxel is in two of them.
    """
    there = torch.stack([earlier_DHW == index for index in range(1, labels + 1)])
    for index, name, radius in parameters.shapes:
        before = there[index - 1].clone()
        after = SHAPES[name](before, radius)
        there &= ~(after & ~before)
        there[index - 1] = after
    for index, which in parameters.removals:
        numbered, count = components_of(there[index - 1].cpu().numpy())
        sizes = component_sizes(numbered, count)
        small = np.flatnonzero(sizes[1:] < LARGEST_SHARE * numbered.size) + 1
        if len(small):
            gone = numbered == small[int(which * len(small))]
            there[index - 1] &= ~torch.from_numpy(gone).to(there.device)
    return there


def dilated(mask_DHW: torch.Tensor, radius: float) -> torch.Tensor:
    """Voxels at most ``radius`` voxels away from a True one.

    Squared distances are made smallest along one axis after the other, which is exact for balls: 3 x 2 x radius
    operations on a box around the mask instead of one for each voxel of the ball.
    """
    reach, most = int(radius), int(radius * radius)
    box = _box(mask_DHW, reach)
    if box is None:
        return mask_DHW.clone()
    squared = torch.where(mask_DHW[box], 0, most + 1).to(torch.int16)
    for axis, length in enumerate(squared.shape):
        nearest = squared.clone()
        for step in range(1, min(reach, length - 1) + 1):
            rest = length - step
            for here, there in ((0, step), (step, 0)):
                part = nearest.narrow(axis, here, rest)
                torch.minimum(part, squared.narrow(axis, there, rest) + step * step, out=part)
        squared = nearest
    out = torch.zeros_like(mask_DHW)
    out[box] = squared <= most
    return out


def eroded(mask_DHW: torch.Tensor, radius: float) -> torch.Tensor:
    """Voxels whose ball lies in the mask, as far as the patch reaches."""
    out, box = torch.zeros_like(mask_DHW), _box(mask_DHW, 1)  # beyond the box's edge lies nothing nearer
    if box is not None:
        out[box] = ~dilated(~mask_DHW[box], radius)
    return out


SHAPES: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "dilate": dilated,
    "erode": eroded,
    "open": lambda mask, radius: dilated(eroded(mask, radius), radius),
    "close": lambda mask, radius: eroded(dilated(mask, radius), radius),
}


def _some(labels: int, generator: np.random.Generator) -> list[int]:
    """Class indices in random order, each by chance of one half."""
    order = generator.permutation(labels) + 1
    return [int(index) for index in order if generator.random() < LABEL_PROBABILITY]


def _box(mask_DHW: torch.Tensor, more: int) -> tuple[slice, ...] | None:
    """The True voxels and so many around them; None without any."""
    sides = []
    for axis, length in enumerate(mask_DHW.shape):
        line = mask_DHW.flatten(axis + 1).any(-1) if axis < mask_DHW.dim() - 1 else mask_DHW
        there = line.flatten(0, axis - 1).any(0).nonzero() if axis else line.nonzero()
        if not len(there):
            return None
        sides.append(slice(max(0, int(there[0]) - more), min(length, int(there[-1]) + more + 1)))
    return tuple(sides)
