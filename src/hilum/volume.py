"""A volume: voxels and where they lie in the patient.

Comes in: an array and a 4x4 affine. Goes out: the same voxels in another axis order, cropped or padded, always with the
affine that keeps every voxel at its place. This module knows no files, no labels, no HU.

Conventions. World coordinates are millimetres in RAS+, as in NIfTI: x grows towards the patient's right, y towards the
front (anterior), z towards the head (superior). The affine maps an index (i, j, k, 1) to the world position of that
voxel's *centre*. Axis codes such as ``"SPL"`` name, for each array axis, the direction in which
its index grows, as nibabel's ``aff2axcodes`` does.

Inside hilum, arrays that networks, measurements and pictures see are in ``INSIDE = "SPL"`` order: axis 0 goes up the
body slice by slice, axis 1 from front to back, axis 2 from the patient's right to left, so that ``array[z]`` is an
axial slice as radiologists look at it. Readers hand out the file's own order and writers take it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np

from hilum.errors import GeometryError

INSIDE = "SPL"
_AXIS_OF_CODE = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
_CODE_OF_AXIS = {axis_sign: code for code, axis_sign in _AXIS_OF_CODE.items()}


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie: a shape and an affine, without the voxels.

    Attributes:
        shape: three voxel counts, each at least 1.
        affine: (4, 4) float64, index to world mm (RAS+); oblique and sheared matrices are kept as they are.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("the affine is not a finite 4x4 matrix", wanted="16 finite numbers")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"the shape is {tuple(self.shape)}", wanted="three axes with at least one voxel each")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise GeometryError(
                "the affine is singular (an axis has zero spacing or two axes coincide)",
                wanted="three independent axes with a spacing above 0 mm",
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance in mm between neighbours along each array axis (lengths of the affine's columns)."""
        a, b, c = (float(s) for s in np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))
        return a, b, c

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel: the determinant, so that sheared grids are right too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def codes(self) -> str:
        """Axis codes such as ``"SPL"``: the direction in which each index grows, by the best one-to-one match."""
        directions = self.affine[:3, :3] / np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        # at exactly 45 degrees two matches are equally good: the second term, blind to the order and the signs of the
        # array's axes, decides alike however the voxels are listed, so that turning back ends where it began
        turn = 1e-6 * directions * np.roll(directions, -1, axis=0)
        best = max(
            permutations(range(3)),
            key=lambda worlds: sum(abs(directions[w, i]) + turn[w, i] for i, w in enumerate(worlds)),
        )
        return "".join(_CODE_OF_AXIS[w, 1 if directions[w, i] >= 0 else -1] for i, w in enumerate(best))

    @property
    def obliqueness_degrees(self) -> float:
        """Largest angle between an array axis and the world axis it is named after."""
        directions = self.affine[:3, :3] / np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        cosines = [abs(directions[_AXIS_OF_CODE[code][0], i]) for i, code in enumerate(self.codes)]
        return float(np.degrees(np.arccos(np.clip(min(cosines), -1, 1))))

    def world(self, index: Any) -> np.ndarray:
        """World mm (RAS+) of voxel indices: (..., 3) to (..., 3); fractions are allowed."""
        moved: np.ndarray = np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return moved

    def index(self, world_mm: Any) -> np.ndarray:
        """The (fractional) voxel index of world positions in mm: the inverse of ``world``."""
        inverse = np.linalg.inv(self.affine[:3, :3])
        moved: np.ndarray = (np.asarray(world_mm, dtype=np.float64) - self.affine[:3, 3]) @ inverse.T
        return moved

    def turns_to(self, codes: str) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """How to get to axis codes: for each new axis the old axis it comes from, and +1 or -1 if it is reversed."""
        wanted = [_axis_and_sign(code, codes) for code in codes]
        if len(codes) != 3 or {axis for axis, _ in wanted} != {0, 1, 2}:
            raise GeometryError(f"axis codes {codes!r}", wanted="one of R/L, one of A/P, one of S/I, e.g. 'RAS'")
        here = [_AXIS_OF_CODE[code] for code in self.codes]
        source = [[axis for axis, _ in here].index(axis) for axis, _ in wanted]
        signs = [1 if here[old][1] == sign else -1 for old, (_, sign) in zip(source, wanted, strict=True)]
        return (source[0], source[1], source[2]), (signs[0], signs[1], signs[2])

    def oriented(self, codes: str) -> Grid:
        """The same voxels listed along other axes."""
        source, signs = self.turns_to(codes)
        turn = np.zeros((4, 4))
        turn[3, 3] = 1
        for new, (old, sign) in enumerate(zip(source, signs, strict=True)):
            turn[old, new] = sign
            turn[old, 3] = 0 if sign > 0 else self.shape[old] - 1
        a, b, c = (self.shape[old] for old in source)
        return Grid((a, b, c), self.affine @ turn)

    def cropped(self, start: Any, stop: Any) -> Grid:
        """The sub-grid from index ``start`` (inside) to ``stop`` (outside)."""
        start, stop = np.asarray(start, dtype=int), np.asarray(stop, dtype=int)
        if (start < 0).any() or (stop > np.array(self.shape)).any() or (stop <= start).any():
            raise GeometryError(
                f"crop {start.tolist()} to {stop.tolist()} of shape {self.shape}", wanted="a box inside"
            )
        affine = np.array(self.affine)
        affine[:3, 3] = self.world(start)
        a, b, c = (int(n) for n in stop - start)
        return Grid((a, b, c), affine)

    def padded(self, before: Any, after: Any) -> Grid:
        """The grid with ``before`` and ``after`` more voxels on each axis."""
        before, after = np.asarray(before, dtype=int), np.asarray(after, dtype=int)
        if (before < 0).any() or (after < 0).any():
            raise GeometryError(f"padding {before.tolist()}, {after.tolist()}", wanted="counts of at least 0")
        affine = np.array(self.affine)
        affine[:3, 3] = self.world(-before)
        a, b, c = (int(n) for n in np.array(self.shape) + before + after)
        return Grid((a, b, c), affine)

    def respaced(self, spacing_mm: Any) -> Grid:
        """The grid over the same extent (outer voxel *edges* kept) whose spacing is as near as whole voxels allow.

        The shape is ``round(shape * old / new)``, at least 1, as nnU-Net v2's ``compute_new_shape`` has it; the exact
        spacing follows from it, so that the edges coincide.
        """
        shape = np.array(self.shape)
        new_shape = np.maximum(1, np.round(shape * np.array(self.spacing_mm) / np.asarray(spacing_mm, float))).astype(
            int
        )
        return self.reshaped(new_shape)

    def reshaped(self, shape: Any) -> Grid:
        """The grid over the same extent (outer voxel edges kept) with another number of voxels on each axis."""
        new_shape = np.asarray(shape, dtype=int)
        scale = np.array(self.shape) / new_shape
        affine = np.array(self.affine)
        affine[:3, :3] = self.affine[:3, :3] * scale
        affine[:3, 3] = self.world(0.5 * scale - 0.5)
        a, b, c = (int(n) for n in new_shape)
        return Grid((a, b, c), affine)

    def distance_mm(self, other: Grid) -> float:
        """How far apart two grids of equal shape lie: the largest distance between equal corners, in mm."""
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1).T
        return float(np.sqrt(((self.world(corners) - other.world(corners)) ** 2).sum(axis=1)).max())

    def same_as(self, other: Grid, tolerance_mm: float = 0.01) -> bool:
        """Whether shapes agree and no corner lies further off than the tolerance (headers store 32-bit numbers)."""
        return self.shape == other.shape and self.distance_mm(other) <= tolerance_mm

    def describe(self) -> str:
        """One line for messages: ``512x512x104, 0.78x0.78x3.00 mm, axes LPS``."""
        shape = "x".join(str(n) for n in self.shape)
        return f"{shape}, {'x'.join(f'{s:.3g}' for s in self.spacing_mm)} mm, axes {self.codes}"


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their grid.

    Attributes:
        array: (I, J, K), any number type; HU for scans, integers for label maps. May be a view: do not write to it.
        affine: (4, 4) float64, index to world mm (RAS+).
        source: where it came from, for messages ("ct.nii.gz"); empty if made in memory.
        header: facts that the file told besides geometry (study date, manufacturer, ...); JSON-serialisable.
    """

    array: np.ndarray
    affine: np.ndarray
    source: str = ""
    header: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise GeometryError(
                f"an array with {self.array.ndim} axes, shape {self.array.shape}",
                where=self.source or None,
                wanted="a 3-D volume",
                fix="give one 3-D image (split a time series, or stack the slices)",
            )
        try:
            object.__setattr__(self, "affine", self.grid.affine)
        except GeometryError as error:
            raise GeometryError(error.found, where=self.source or None, wanted=error.wanted, fix=error.fix) from None

    @classmethod
    def on(cls, grid: Grid, array: np.ndarray, source: str = "", header: dict[str, Any] | None = None) -> Volume:
        """A volume from an array that lies on ``grid``."""
        assert array.shape == grid.shape, (array.shape, grid.shape)
        return cls(array, grid.affine, source, header or {})

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        a, b, c = self.array.shape
        return Grid((a, b, c), self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Three voxel counts."""
        return self.grid.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance in mm between neighbours along each array axis."""
        return self.grid.spacing_mm

    @property
    def codes(self) -> str:
        """Axis codes such as ``"SPL"``."""
        return self.grid.codes

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return self.grid.voxel_volume_mm3 / 1000.0

    def with_array(self, array: np.ndarray) -> Volume:
        """Other voxels on the same grid."""
        assert array.shape == self.array.shape, (array.shape, self.array.shape)
        return replace(self, array=array)

    def oriented(self, codes: str = INSIDE) -> Volume:
        """The same voxels in another axis order; a view, no voxel is copied."""
        source, signs = self.grid.turns_to(codes)
        array = self.array.transpose(source)[tuple(slice(None, None, sign) for sign in signs)]
        return replace(self, array=array, affine=self.grid.oriented(codes).affine)

    def cropped(self, start: Any, stop: Any) -> Volume:
        """The box from index ``start`` (inside) to ``stop`` (outside); a view."""
        grid = self.grid.cropped(start, stop)
        box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return replace(self, array=self.array[box], affine=grid.affine)

    def padded(self, before: Any, after: Any, value: float) -> Volume:
        """More voxels of ``value`` around."""
        grid = self.grid.padded(before, after)
        widths = [(int(a), int(b)) for a, b in zip(before, after, strict=True)]
        return replace(self, array=np.pad(self.array, widths, constant_values=value), affine=grid.affine)

    def world(self, index: Any) -> np.ndarray:
        """World mm (RAS+) of voxel indices (..., 3)."""
        return self.grid.world(index)

    def index(self, world_mm: Any) -> np.ndarray:
        """Fractional voxel index of world positions in mm (..., 3)."""
        return self.grid.index(world_mm)


def require_same_grid(truth: Volume, other: Volume, tolerance_mm: float = 0.1) -> None:
    """Raise GeometryError, saying how they differ, unless two volumes lie on one grid.

    The tolerance allows for headers that round to 32-bit numbers; a tenth of a millimetre is below any CT's resolution.
    """
    if truth.shape != other.shape:
        raise GeometryError(
            f"shape {other.shape}, but {truth.source or 'its partner'} has {truth.shape}",
            where=other.source or None,
            wanted="image and label map of one shape",
            fix="resample one onto the other, or pair the right files",
        )
    distance = truth.grid.distance_mm(other.grid)
    if distance > tolerance_mm:
        raise GeometryError(
            f"lies up to {distance:.1f} mm away from {truth.source or 'its partner'} ({other.grid.describe()} against "
            f"{truth.grid.describe()})",
            where=other.source or None,
            wanted="image and label map with one affine",
            fix="correct the header of the wrong one (a flip, a shift or another spacing)",
        )


def _axis_and_sign(code: str, codes: str) -> tuple[int, int]:
    if code not in _AXIS_OF_CODE:
        raise GeometryError(f"axis codes {codes!r}", wanted="letters of R L A P S I, e.g. 'RAS'")
    return _AXIS_OF_CODE[code]
