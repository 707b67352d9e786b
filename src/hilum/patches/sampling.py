"""Sampling: which box of which case becomes the next patch.

Comes in: a store of prepared cases, a patch size, a seed. Goes out: a case and a corner for every item of a batch, and
the box itself, cut from the memory-mapped array. It knows no tensor and no augmentation.

Every item is a function of (seed, step, item) alone: a resumed run draws the patches that the uninterrupted one would
have drawn, in whatever order or thread they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from hilum.components import Box, nonzero_box
from hilum.errors import DatasetError, RecipeError

Shape3 = tuple[int, int, int]
By = Literal["class", "voxel", "lesion"]
Cases = Literal["uniform", "presence"]

AIR_HU = -1024  # what lies outside a scan
CASES_OPEN = 64  # opening a case reads its locations, 0.4 MB; its voxels stay on the disk
STREAM = 1  # sets these random numbers apart from those of other stages with the same (seed, step, item)


class PreparedCaseLike(Protocol):
    """What sampling needs of a prepared case (``prepare.store.PreparedCase``)."""

    @property
    def image_DHW(self) -> np.ndarray:
        """Int16 HU."""
        ...

    @property
    def labels_DHW(self) -> np.ndarray:
        """Uint8 class index."""
        ...

    @property
    def locations(self) -> Mapping[int, np.ndarray]:
        """Class index to (N, 3) voxels of that class, a sample."""
        ...

    @property
    def lesions(self) -> Mapping[int, Sequence[np.ndarray]]:
        """Class index to the voxels (N, 3) of each lesion of that class, a sample of each."""
        ...

    @property
    def counts(self) -> Sequence[int]:
        """Voxels of each class index, background first."""
        ...


class StoreLike(Protocol):
    """What sampling needs of a store (``prepare.store.Store``)."""

    def case(self, name: str) -> PreparedCaseLike:
        """The prepared case with this name."""
        ...


@dataclass(frozen=True)
class Place:
    """Where one patch lies.

    Attributes:
        name: the case.
        corner: (z, y, x) of the patch's first voxel; negative where the case is smaller than the patch.
        class_index: the class it was centred on, or 0 if it was placed anywhere.
    """

    name: str
    corner: Shape3
    class_index: int = 0


@dataclass(frozen=True)
class Draw:
    """The places of one batch."""

    places: tuple[Place, ...]


class Sampler:
    """Draws places.

    A foreground item is centred on a voxel of a class, any other lies anywhere in a case drawn uniformly. No patch
    leaves a case that can hold it, as no tile does in inference. For a foreground item

    * ``cases = "uniform"`` draws the case first, then a class from those that it has; "presence" draws the class first,
      from all that the cases have, then a case that has it: what is rare is seen as often as what is common.
    * ``by = "class"`` draws from all voxels of the class; "voxel" draws classes in proportion to their voxels; "lesion"
      draws one of the case's lesions, whatever its size, then a voxel of it (with "presence": one of all cases'
      lesions). Classes that are no lesions are drawn as by "class".

    Args:
        store: prepared cases.
        names: the cases to draw from.
        patch: (D, H, W), D = 1 for two-dimensional patches.
        foreground: share of foreground items, 0 to 1 (see ``is_foreground``).
        seed: of the run.
        weights: class index to how often it is chosen relative to others of its case; classes not listed count 1.
        by: "class", "voxel" or "lesion".
        cases: "uniform" or "presence".
        within: voxels along D, H, W around the box of all labels in which every patch has its centre; None: anywhere.

    Raises:
        DatasetError: no cases.
        RecipeError: a share outside 0..1.
    """

    def __init__(
        self,
        store: StoreLike,
        names: Sequence[str],
        patch: Shape3,
        foreground: float,
        seed: int,
        weights: Mapping[int, float] | None = None,
        by: By = "class",
        cases: Cases = "uniform",
        within: Shape3 | None = None,
    ):
        if not names:
            raise DatasetError("no cases to draw patches from", wanted="at least one training case")
        check_foreground(foreground)
        self.names, self.patch = tuple(names), patch
        self.case = lru_cache(CASES_OPEN)(store.case)
        self.foreground, self.seed, self.weights = foreground, seed, dict(weights or {})
        self.by, self.within = by, within
        self._box = lru_cache(CASES_OPEN)(self._labelled_box)
        self.holders = self._holders() if cases == "presence" else {}
        self.sizes = _sizes(map(self.case, self.names)) if self.holders and by == "voxel" else {}

    def draw(self, batch: int, step: int) -> Draw:
        """The places of the batch at this step: the same whenever it is asked."""
        return Draw(tuple(self.place(batch, step, item) for item in range(batch)))

    def place(self, batch: int, step: int, item: int) -> Place:
        """The place of one item of the batch at this step."""
        rng = random_numbers(self.seed, step, item, STREAM)
        name = self.names[int(rng.integers(len(self.names)))]
        wanted = is_foreground(self.foreground, batch, item, float(rng.random()))
        index = 0
        if wanted and self.holders:
            index = self._class(rng, sorted(self.holders), self.sizes)
            name = self.holders[index][int(rng.integers(len(self.holders[index])))]
        case = self.case(name)
        if wanted and not self.holders:
            index = self._class(rng, _present(case), _sizes([case]) if self.by == "voxel" else {})
        if not index:
            box = self._box(name) if self.within else None
            if box is None:
                return Place(name, anywhere(rng, case.image_DHW.shape, self.patch))
            centre = np.array([int(rng.integers(side.start, side.stop)) for side in box])
            return Place(name, centred(centre, case.image_DHW.shape, self.patch))
        lesions = case.lesions.get(index, ()) if self.by == "lesion" else ()
        voxels = lesions[int(rng.integers(len(lesions)))] if lesions else case.locations[index]
        voxel = voxels[int(rng.integers(len(voxels)))]
        return Place(name, centred(voxel, case.image_DHW.shape, self.patch), index)

    def _labelled_box(self, name: str) -> Box | None:
        """Where centres of patches may lie in a case; None where nothing is labelled."""
        assert self.within is not None
        labels = self.case(name).labels_DHW
        box = nonzero_box(labels)
        if box is None:
            return None
        z, y, x = (
            slice(max(0, side.start - more), min(n, side.stop + more))
            for side, more, n in zip(box, self.within, labels.shape, strict=True)
        )
        return z, y, x

    def _class(self, rng: np.random.Generator, present: Sequence[int], sizes: Mapping[int, float]) -> int:
        """A class of those present, 0 if there is none."""
        if not present:
            return 0
        shares = np.array([self.weights.get(index, 1.0) * sizes.get(index, 1.0) for index in present])
        return present[int(rng.choice(len(present), p=shares / shares.sum()))]

    def _holders(self) -> dict[int, list[str]]:
        """By class the cases that have it; by lesion a case stands there once for each of them."""
        found: dict[int, list[str]] = {}
        for name in self.names:
            case = self.case(name)
            for index in _present(case):
                lesions = len(case.lesions.get(index, ())) if self.by == "lesion" else 0
                found.setdefault(index, []).extend([name] * max(1, lesions))
        return found


def _present(case: PreparedCaseLike) -> list[int]:
    return [index for index in sorted(case.locations) if index > 0 and len(case.locations[index])]


def _sizes(cases: Iterable[PreparedCaseLike]) -> dict[int, float]:
    """Voxels of each class."""
    sums: dict[int, float] = {}
    for case in cases:
        for index, count in enumerate(case.counts):
            sums[index] = sums.get(index, 0.0) + count
    return sums


def anywhere(rng: np.random.Generator, shape: Sequence[int], patch: Shape3) -> Shape3:
    """The corner of a patch that lies anywhere inside; centred where the case is smaller."""
    z, y, x = (int(rng.integers(n - p + 1)) if n >= p else (n - p) // 2 for n, p in zip(shape, patch, strict=True))
    return z, y, x


def check_foreground(share: float) -> None:
    """Raise RecipeError unless the share of foreground patches lies between 0 and 1."""
    if not 0 <= share <= 1:
        raise RecipeError(f"patches.foreground = {share}", wanted="a share from 0 to 1")


def is_foreground(share: float, batch: int, item: int, chance: float) -> bool:
    """Whether an item must show foreground.

    nnU-Net v2 makes a rounded number of the last items foreground, at least one in the usual batches. Here the last
    item of a batch of two or more always is (if ``share`` > 0), and the others are by chance, such that the expected
    share is the wanted one as soon as that exceeds ``1 / batch``. A batch of one goes by chance alone.

    Args:
        share: wanted share of foreground items, 0 to 1.
        batch: items of a batch.
        item: which one.
        chance: a uniform random number in [0, 1).
    """
    if batch == 1 or share == 0:
        return chance < share
    return item == batch - 1 or chance < (share * batch - 1) / (batch - 1)


def centred(voxel: np.ndarray, shape: Sequence[int], patch: Shape3) -> Shape3:
    """The corner of the patch about a voxel, moved to stay inside; centred on the case where that is smaller."""
    z, y, x = (
        min(max(int(v) - p // 2, 0), n - p) if n >= p else (n - p) // 2
        for v, n, p in zip(voxel, shape, patch, strict=True)
    )
    return z, y, x


def cut(array_DHW: np.ndarray, corner: Shape3, shape: Shape3, fill: int) -> np.ndarray:
    """A copy of a box that may reach over the array's edges, filled with ``fill`` there: (shape), the array's type."""
    inside = tuple(
        slice(min(max(c, 0), n), max(min(c + s, n), 0)) for c, s, n in zip(corner, shape, array_DHW.shape, strict=True)
    )
    part = array_DHW[inside]
    if part.shape == shape:
        return np.array(part, order="C")
    box = np.full(shape, fill, array_DHW.dtype)
    if part.size:
        box[tuple(slice(i.start - c, i.stop - c) for i, c in zip(inside, corner, strict=True))] = part
    return box


def random_numbers(seed: int, step: int, item: int, stream: int) -> np.random.Generator:
    """Random numbers of one purpose for one item of one step; negative seeds are as good as others."""
    # the purpose stands early: NumPy pads short seeds with zeros, so a purpose of 0 at the end would count for none
    return np.random.default_rng([seed % 2**64, stream, step, item])
