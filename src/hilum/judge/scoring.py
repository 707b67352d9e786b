"""What every scoring protocol shares: a pair of label arrays made ready once, the scores of a case, a protocol's facts.

Comes in: a truth and a prediction as Volumes. Goes out: a ``Pair`` (cropped to what is labelled, counted once) that a
protocol turns into a ``CaseScore``. Knows no files and no particular challenge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hilum.errors import GeometryError, LabelError
from hilum.judge.lesions import Neighbours
from hilum.judge.overlap import Counts, joint_counts, region_counts
from hilum.judge.surface import Spacing, SurfelDistances, VoxelDistances, surfel_distances, voxel_distances
from hilum.labels import LabelScheme
from hilum.volume import Grid, Volume, require_same_grid

Values = dict[str, dict[str, float]]
Sums = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ScoreOptions:
    """What a person may choose; official protocols have their own numbers and ignore these.

    Attributes:
        tolerances_mm: of NSD, for the protocols that leave it open.
        lesion_iou: a lesion counts as detected above this intersection over union.
        connectivity: 6, 18 or 26 neighbours make one lesion.
        diameters_mm: borders of the lesion size bins, as diameters of spheres of the same volume.
        threads: for the distances within one case.
    """

    tolerances_mm: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 7.0)
    lesion_iou: float = 0.5
    connectivity: Neighbours = 26
    diameters_mm: tuple[float, ...] = (10.0, 20.0, 40.0)
    threads: int = 1


@dataclass(frozen=True)
class CaseScore:
    """One case, scored.

    Attributes:
        values: region -> metric -> number; NaN or inf where undefined.
        reasons: "region/metric" -> why it is undefined.
        sums: what adds up over cases to the pooled values.
        peaks: what is pooled by taking the largest.
        truth_voxels: region -> voxels of the truth.
        lesions: region -> the lists of missed and invented lesions.
        warnings: sentences about this case.
        label_counts: label, 0 included -> voxels in both, in the truth, in the prediction.
        traits: ("headers" or "resampled", sentence) of what betrays how the prediction was made.
    """

    values: Values
    reasons: dict[str, str] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    truth_voxels: dict[str, int] = field(default_factory=dict)
    lesions: dict[str, dict[str, list[dict[str, object]]]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    label_counts: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    traits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Pair:
    """Truth and prediction in one array order, cropped to the box that holds every label of either.

    Attributes:
        truth: uint8.
        prediction: uint8, same shape.
        outside: background voxels beyond the box.
        grid: where the box lies, by the truth's header.
        prediction_spacing_mm: by the prediction's header, which KiTS believes.
    """

    truth: np.ndarray
    prediction: np.ndarray
    outside: int
    grid: Grid
    prediction_spacing_mm: Spacing

    @cached_property
    def joint(self) -> np.ndarray:
        """``overlap.joint_counts`` over the whole stored array."""
        return joint_counts(self.truth, self.prediction, self.outside)

    def counts(self, labels: Iterable[int]) -> Counts:
        """Confusion counts of a union of labels."""
        return region_counts(self.joint, labels)

    def masks(self, labels: Iterable[int]) -> Masks:
        """Both masks of a union of labels, cropped to their own box."""
        runs = _runs(labels)
        truth, prediction = _within(self.truth, runs), _within(self.prediction, runs)
        start, stop = union_box(truth, prediction)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        return Masks(truth[box], prediction[box], self.grid.cropped(start, stop), self.prediction_spacing_mm)

    def label_counts(self) -> dict[int, tuple[int, int, int]]:
        """Label, 0 included -> voxels in both, in the truth, in the prediction; of those that occur."""
        sums = np.stack([np.diagonal(self.joint), self.joint.sum(axis=1), self.joint.sum(axis=0)], axis=1)
        found = np.flatnonzero(sums.any(axis=1)).tolist()
        return {value: (int(sums[value, 0]), int(sums[value, 1]), int(sums[value, 2])) for value in found}

    def values_seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Label values that occur in the truth and in the prediction."""
        return np.flatnonzero(self.joint.sum(axis=1)), np.flatnonzero(self.joint.sum(axis=0))


@dataclass(frozen=True, eq=False)
class Masks:
    """Two boolean masks of one region in their common box."""

    truth: np.ndarray
    prediction: np.ndarray
    grid: Grid
    prediction_spacing_mm: Spacing

    def surfels(self, spacing_mm: Spacing | None = None, threads: int = 1, up_to_mm: float = np.inf) -> SurfelDistances:
        """DeepMind's distances, by the truth's spacing unless another is given; see ``surfel_distances``."""
        spacing = spacing_mm or self.grid.spacing_mm
        return surfel_distances(self.truth, self.prediction, spacing, threads, up_to_mm)

    def voxels(self, connectivity: int = 1, threads: int = 1) -> VoxelDistances:
        """Distances between surface voxels, by the truth's spacing."""
        return voxel_distances(self.truth, self.prediction, self.grid.spacing_mm, connectivity, threads)


@dataclass(frozen=True)
class Protocol:
    """A way to score, with the facts that a reader of its numbers needs.

    Attributes:
        name: as on the command line.
        about: one sentence.
        empty_policy: what empty regions are worth.
        scheme: name of the label scheme it reads.
        score: one case.
        pool: sums and peaks over cases (arrays, elementwise) to region -> metric -> pooled value; None if it has none.
        fixed: True if the labels and regions are the challenge's own, whatever the scheme says.
        same_grid: True if truth and prediction must lie at one place; official scorers compare arrays blindly.
    """

    name: str
    about: str
    empty_policy: str
    scheme: str
    score: Callable[[Pair, LabelScheme, ScoreOptions], CaseScore]
    pool: Callable[[Sums, Sums], dict[str, dict[str, np.ndarray]]] | None = None
    fixed: bool = True
    same_grid: bool = False


def make_pair(truth: Volume, prediction: Volume, same_grid: bool) -> tuple[Pair, tuple[str, ...]]:
    """Truth and prediction checked against each other and cropped; and warnings about their headers.

    Args:
        truth: label Volume.
        prediction: label Volume.
        same_grid: compare by place: a prediction in another axis order is turned, one that lies elsewhere is refused.
            Otherwise compare arrays in file order, as the official scorers do, and warn about the headers.

    Raises:
        GeometryError: shapes differ, or (same_grid) the places do.
        LabelError: numbers that are no labels.
    """
    warnings = []
    if same_grid:
        if prediction.codes != truth.codes:
            prediction = prediction.oriented(truth.codes)
        require_same_grid(truth, prediction)
    elif truth.shape != prediction.shape:
        raise GeometryError(
            f"shape {prediction.shape}, but the truth has {truth.shape}",
            where=prediction.source or "prediction",
            wanted="a prediction on the truth's own grid",
            fix="write the prediction on the scan's grid, or pair the right files",
        )
    else:
        warnings = _header_warnings(truth, prediction)
    arrays = [as_labels(volume) for volume in (truth, prediction)]
    start, stop = union_box(*arrays)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    cropped = [np.ascontiguousarray(array[box]) for array in arrays]
    outside = int(arrays[0].size - cropped[0].size)
    pair = Pair(cropped[0], cropped[1], outside, truth.grid.cropped(start, stop), prediction.spacing_mm)
    return pair, tuple(warnings)


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
