"""A truth and a prediction made ready for scoring: checked, cropped to what is labelled, counted once, measured once.

Comes in: two label Volumes. Goes out: a ``Pair``, its ``Region`` s and what is measured of them. Everything measured
has a name in the pair's ``Memo``, so that no protocol, no metric and (``measured.py``) no later run measures it again.
Knows no files and no challenge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hilum.errors import GeometryError, LabelError
from hilum.judge.lesions import Lesions, Neighbours, find_lesions
from hilum.judge.nearest import Spacing
from hilum.judge.overlap import Counts, joint_counts, region_counts
from hilum.judge.surface import SurfelDistances, VoxelDistances, surfel_distances, voxel_distances
from hilum.volume import Grid, Volume, require_same_grid

Arrays = tuple[np.ndarray, ...]


@dataclass
class Memo:
    """What has been measured of one pair, by name.

    Attributes:
        known: "name/number" -> array.
        keeps: what is measured outlives the run, and so is measured in full and stored small.
        added: how many measurements were made, not remembered.
    """

    known: dict[str, np.ndarray] = field(default_factory=dict)
    keeps: bool = False
    added: int = 0

    def recall(self, name: str, measure: Callable[[], Sequence[np.ndarray]]) -> Arrays:
        """The arrays called ``name``, measured if they are not known yet."""
        if f"{name}/0" not in self.known:
            self.known |= {f"{name}/{i}": np.asarray(array) for i, array in enumerate(measure())}
            self.added += 1
        found: list[np.ndarray] = []
        while f"{name}/{len(found)}" in self.known:
            found.append(self.known[f"{name}/{len(found)}"])
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Pair:
    """Truth and prediction in one array order, cropped to the box that holds every label of either.

    Attributes:
        arrays: gives truth and prediction, uint8 of one shape.
        joint: ``overlap.joint_counts`` over the whole stored array.
        grid: where the box lies, by the truth's header.
        prediction_spacing_mm: by the prediction's header, which KiTS believes.
        memo: what has been measured.
    """

    arrays: Callable[[], Arrays]
    joint: np.ndarray
    grid: Grid
    prediction_spacing_mm: Spacing
    memo: Memo = field(default_factory=Memo)

    @cached_property
    def truth(self) -> np.ndarray:
        """(I, J, K) uint8."""
        return self.arrays()[0]

    @cached_property
    def prediction(self) -> np.ndarray:
        """(I, J, K) uint8."""
        return self.arrays()[1]

    def counts(self, labels: Iterable[int]) -> Counts:
        """Confusion counts of a union of labels."""
        return region_counts(self.joint, labels)

    def region(self, labels: Iterable[int]) -> Region:
        """A union of labels, of which those that occur matter: regions of the same voxels are measured once."""
        seen = set(np.concatenate(self.values_seen()).tolist())
        return Region(self, tuple(sorted(seen.intersection(labels))))

    def label_counts(self) -> dict[int, tuple[int, int, int]]:
        """Label, 0 included -> voxels in both, in the truth, in the prediction; of those that occur."""
        sums = np.stack([np.diagonal(self.joint), self.joint.sum(axis=1), self.joint.sum(axis=0)], axis=1)
        found = np.flatnonzero(sums.any(axis=1)).tolist()
        return {value: (int(sums[value, 0]), int(sums[value, 1]), int(sums[value, 2])) for value in found}

    def values_seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Label values that occur in the truth and in the prediction."""
        return np.flatnonzero(self.joint.sum(axis=1)), np.flatnonzero(self.joint.sum(axis=0))


@dataclass(frozen=True, eq=False)
class Region:
    """One union of labels of a pair and what is measured of it."""

    pair: Pair
    labels: tuple[int, ...]

    @cached_property
    def counts(self) -> Counts:
        """Confusion counts."""
        return self.pair.counts(self.labels)

    @cached_property
    def masks(self) -> Masks:
        """Both masks, cropped to their own box."""
        runs = _runs(self.labels)
        truth, prediction = _within(self.pair.truth, runs), _within(self.pair.prediction, runs)
        start, stop = union_box(truth, prediction)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        grid = self.pair.grid.cropped(start, stop)
        return Masks(truth[box], prediction[box], grid)

    def surfels(self, spacing_mm: Spacing | None = None, threads: int = 1, up_to_mm: float = np.inf) -> SurfelDistances:
        """DeepMind's distances, by the truth's spacing unless another is given; see ``surfel_distances``."""
        spacing = spacing_mm or self.pair.grid.spacing_mm
        up_to_mm = np.inf if self.pair.memo.keeps else up_to_mm
        name = f"surfels {self.labels} {spacing} {up_to_mm:g}"
        return SurfelDistances(
            *self.pair.memo.recall(
                name,
                lambda: _parts(
                    surfel_distances(self.masks.truth, self.masks.prediction, spacing, threads, up_to_mm),
                    self.pair.memo.keeps,
                ),
            )
        )

    def voxels(self, connectivity: int = 1, threads: int = 1) -> VoxelDistances:
        """Distances between surface voxels, by the truth's spacing."""
        found = self.pair.memo.recall(
            f"voxels {self.labels} {connectivity}",
            lambda: _counted(self.masks.voxels(connectivity, threads), self.pair.memo.keeps),
        )
        return VoxelDistances(found[0], found[1]) if len(found) == 2 else _uncounted(found)

    def lesions(self, connectivity: Neighbours = 26) -> Lesions:
        """Components on both sides and their overlaps."""

        def measure() -> Arrays:
            found = find_lesions(self.masks.truth, self.masks.prediction, self.masks.grid, connectivity)
            voxels = (found.truth_voxels, found.prediction_voxels)
            return (*voxels, found.truth_mm, found.prediction_mm, found.pairs, found.shared, np.array(found.voxel_ml))

        parts = self.pair.memo.recall(f"lesions {self.labels} {connectivity}", measure)
        return Lesions(parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], float(parts[6]))


@dataclass(frozen=True, eq=False)
class Masks:
    """Two boolean masks in their common box, which lies on ``grid``."""

    truth: np.ndarray
    prediction: np.ndarray
    grid: Grid

    def voxels(self, connectivity: int = 1, threads: int = 1) -> VoxelDistances:
        """Distances between surface voxels, by the grid's spacing."""
        return voxel_distances(self.truth, self.prediction, self.grid.spacing_mm, connectivity, threads)


def _parts(found: SurfelDistances, small: bool) -> Arrays:
    """Distances and areas of both sides; ``small``: areas of equal distance summed (a grid knows few distances)."""
    sides = ((found.truth_mm, found.truth_mm2), (found.prediction_mm, found.prediction_mm2))
    if not small:
        return (*sides[0], *sides[1])
    parts: list[np.ndarray] = []
    for mm, mm2 in sides:
        values, index = np.unique(mm, return_inverse=True)
        parts += [values, np.bincount(index, mm2, len(values))]
    return tuple(parts)


def _counted(found: VoxelDistances, small: bool) -> Arrays:
    if not small:
        return found.truth_mm, found.prediction_mm
    sides = (found.truth_mm, found.prediction_mm)
    return tuple(part for mm in sides for part in np.unique(mm, return_counts=True))


def _uncounted(parts: Arrays) -> VoxelDistances:
    return VoxelDistances(np.repeat(parts[0], parts[1]), np.repeat(parts[2], parts[3]))


def make_pair(
    truth: Volume, prediction: Volume, same_grid: bool, memo: Memo | None = None
) -> tuple[Pair, tuple[str, ...]]:
    """Truth and prediction checked against each other and cropped; and warnings about their headers.

    Args:
        truth: label Volume.
        prediction: label Volume.
        same_grid: compare by place: a prediction in another axis order is turned, one that lies elsewhere is refused.
            Otherwise compare arrays in file order, as the official scorers do, and warn about the headers.
        memo: where measurements go.

    Raises:
        GeometryError: shapes differ, or (same_grid) the places do.
        LabelError: numbers that are no labels.
    """
    warnings = checked_headers(truth, prediction, same_grid)
    if must_turn(truth, prediction, same_grid):
        prediction = prediction.oriented(truth.codes)
    arrays = [as_labels(volume) for volume in (truth, prediction)]
    start, stop = union_box(*arrays)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    cropped = tuple(np.ascontiguousarray(array[box]) for array in arrays)
    joint = joint_counts(cropped[0], cropped[1], int(arrays[0].size - cropped[0].size))
    grid = truth.grid.cropped(start, stop)
    return Pair(lambda: cropped, joint, grid, prediction.spacing_mm, memo or Memo()), warnings


def must_turn(truth: Volume, prediction: Volume, same_grid: bool) -> bool:
    """Whether the prediction's axes are to be put into the truth's order."""
    return same_grid and prediction.codes != truth.codes


def checked_headers(truth: Volume, prediction: Volume, same_grid: bool) -> tuple[str, ...]:
    """Warnings about headers that differ; GeometryError where that is not allowed. Arrays are not looked at."""
    if same_grid:
        turn = must_turn(truth, prediction, same_grid)
        require_same_grid(truth, prediction.oriented(truth.codes) if turn else prediction)
        return ()
    if truth.shape != prediction.shape:
        raise GeometryError(
            f"shape {prediction.shape}, but the truth has {truth.shape}",
            where=prediction.source or "prediction",
            wanted="a prediction on the truth's own grid",
            fix="write the prediction on the scan's grid, or pair the right files",
        )
    return tuple(_header_warnings(truth, prediction))


def as_labels(volume: Volume) -> np.ndarray:
    """The array as uint8; fractions, negative numbers and numbers above 255 are refused."""
    array = volume.array
    where = volume.source or None
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.round(array))).all():
        raise LabelError(
            "holds numbers that are no integers",
            where=where,
            wanted="a label map",
            fix="give the label map itself, not an image or probabilities; resample label maps with nearest neighbour",
        )
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise LabelError(
            f"holds numbers from {low:g} to {high:g}",
            where=where,
            wanted="labels of 0 to 255",
            fix="give the label map, not the scan",
        )
    return array.astype(np.uint8)


def union_box(truth: np.ndarray, prediction: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Start and stop of the smallest box with every non-zero voxel of both (bytes); one voxel if there is none.

    Planes are read as they lie in memory, eight voxels at a time where the lines allow it.
    """
    order = np.argsort([-abs(stride) for stride in truth.strides], kind="stable")
    sides = [array.transpose(order).view(np.uint8) for array in (truth, prediction)]
    if sides[0].shape[2] % 8 == 0 and all(side.strides[2] == 1 for side in sides):
        sides = [side.view(np.uint64) for side in sides]
    planes = np.zeros(sides[0].shape[0], bool)
    either = np.empty(sides[0].shape[1:], sides[0].dtype)
    used = np.zeros_like(either)
    for k in range(len(planes)):
        np.bitwise_or(sides[0][k], sides[1][k], out=either)
        used |= either
        planes[k] = np.bitwise_or.reduce(either, axis=0).any()
    flat = used.view(np.uint8) != 0
    lines = [np.flatnonzero(line) for line in (planes, flat.any(axis=1), flat.any(axis=0))]
    if not lines[0].size:
        return (0, 0, 0), (1, 1, 1)
    lines = [lines[int(place)] for place in np.argsort(order)]
    return tuple(int(line[0]) for line in lines), tuple(int(line[-1]) + 1 for line in lines)


def _runs(labels: Iterable[int]) -> list[tuple[int, int]]:
    """Labels as ranges, first to last."""
    runs: list[tuple[int, int]] = []
    for value in sorted(labels):
        if runs and runs[-1][1] == value - 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    return runs


def _within(array: np.ndarray, runs: list[tuple[int, int]]) -> np.ndarray:
    """Whether each uint8 lies in one of the ranges; comparisons of bytes are many times faster than a look-up."""
    out = np.zeros(array.shape, bool)
    for low, high in runs:
        # below ``low`` the difference wraps to a large number
        out |= (array == low) if low == high else (array - np.uint8(low)) <= high - low
    return out


def _header_warnings(truth: Volume, prediction: Volume) -> list[str]:
    spacings = [np.array(volume.spacing_mm) for volume in (truth, prediction)]
    if not np.allclose(spacings[0], spacings[1], rtol=1e-4, atol=1e-5):
        there, here = ("x".join(f"{s:.4g}" for s in spacing) for spacing in spacings)
        return [f"the prediction's header says {here} mm spacing, the truth's {there} mm"]
    distance = truth.grid.distance_mm(prediction.grid)
    if distance > 0.1:
        return [
            f"the headers place truth and prediction up to {distance:.1f} mm apart; arrays were compared in file order"
        ]
    return []
