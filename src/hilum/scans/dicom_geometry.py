"""Where the slices of a series lie, and whether they make one regular volume.

Comes in: slices in any order. Goes out: a ``Stack``: the slices sorted along their common normal and the grid they
fill, or a GeometryError that names the slices at fault. It knows no pixels; it never drops, averages or invents a
slice, because a volume measured from a stack with a silent gap is wrong.

Positions and orientations are DICOM's (mm, LPS; PS3.3 C.7.6.2.1.1): a pixel in column i and row j lies at
``position + i * column_spacing * row_direction + j * row_spacing * column_direction``. The stack's array is indexed
(column i, row j, slice k) as ITK and most NIfTI files do; k grows along ``row_direction x column_direction``, which for
a plain axial series is towards the head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import numpy as np

from hilum.errors import GeometryError
from hilum.scans.dicom_files import Slice
from hilum.volume import Grid

# How far a slice may lie from where a regular stack would have it: a tenth of the thinnest CT slices, and more than the
# rounding of positions (0.01 mm) in real files. 1 % of the spacing is below what any measurement shows.
TOLERANCE_MM = 0.05
TOLERANCE_SHARE = 0.01
_TILT_DEGREES = 0.2  # rounded positions of a short stack seem tilted by less
_DIRECTION_TOLERANCE = 1e-3  # direction cosines are written with few digits
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order, and the grid they fill.

    Attributes:
        slices: ascending along the normal.
        grid: shape (columns, rows, slices) and the affine to RAS+ mm; sheared if the gantry was tilted.
        spacing_mm: distance between slices along the normal.
        drift_mm: how far each slice is shifted in its own plane against the one before: along rows, along columns.
        tilt_degrees: the angle between the normal and the line through the slices' first pixels.
    """

    slices: tuple[Slice, ...]
    grid: Grid
    spacing_mm: float
    drift_mm: tuple[float, float]
    tilt_degrees: float

    @property
    def tilted(self) -> bool:
        """Whether the slices shift sideways by more than rounding does."""
        total = float(np.hypot(*self.drift_mm)) * (len(self.slices) - 1)
        return self.tilt_degrees > _TILT_DEGREES and total > tolerance_mm(self.spacing_mm)


def tolerance_mm(spacing_mm: float) -> float:
    """How far a slice may lie off the regular stack."""
    return max(TOLERANCE_MM, TOLERANCE_SHARE * spacing_mm)


def arrange(slices: Sequence[Slice], where: Path) -> Stack:
    """Sort slices by position and check that they are one regular stack.

    Raises:
        GeometryError: fewer than two slices; no position; mixed sizes, orientations or pixel spacings; duplicated or
            missing slices; changing spacing; slices that jump sideways.
    """
    _check_alike(slices, where)
    row, column, normal = _directions(slices[0], where)
    positions = np.array([s.position for s in slices])
    depths = positions @ normal
    order = np.argsort(depths, kind="stable")
    slices, positions, depths = [slices[k] for k in order], positions[order], depths[order]
    _check_depths(slices, depths, where)

    count = len(slices)
    step = (positions[-1] - positions[0]) / (count - 1)
    spacing = float(step @ normal)
    off = np.linalg.norm(positions - positions[0] - np.arange(count)[:, None] * step, axis=1)
    bad = np.flatnonzero(off > tolerance_mm(spacing)).tolist()
    if bad:
        raise GeometryError(
            f"{_count(len(bad), 'slice')} of {count} lie off the regular stack, by up to {off.max():.2f} mm: "
            + _listed([f"{slices[k].name} at {depths[k]:.2f} mm" for k in bad]),
            where=where,
            wanted=f"slices every {spacing:.4g} mm in one line, within {tolerance_mm(spacing):.2g} mm",
            fix="export the series again",
        )
    rows, columns = slices[0].shape
    between_rows, between_columns = slices[0].pixel_spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    affine[:2] *= -1  # LPS to RAS
    drift = (float(step @ row), float(step @ column))
    tilt = float(np.degrees(np.arctan2(np.hypot(*drift), spacing)))
    return Stack(tuple(slices), Grid((columns, rows, count), affine), spacing, drift, tilt)


def _check_alike(slices: Sequence[Slice], where: Path) -> None:
    """One size, one orientation, one pixel spacing, and a position for each."""
    if len(slices) < 2:
        raise GeometryError(
            "holds a single slice" if slices else "holds no slice",
            where=where,
            wanted="at least 2 slices of one series",
            fix="give the folder with the whole series",
        )
    needed = (("position", "Image Position"), ("orientation", "Image Orientation"), ("pixel_spacing", "Pixel Spacing"))
    for fact, what in needed:
        without = [s.name for s in slices if getattr(s, fact) is None]
        if without:
            raise GeometryError(
                f"{_count(len(without), 'slice')} of {len(slices)} have no {what}: {_listed(without)}",
                where=where,
                wanted="CT slices that say where they lie",
                fix="export the series again, or remove these files",
            )
    for what, values, text, tolerance in _ALIKE:
        _check_one(slices, what, values, text, tolerance, where)
    spacing = slices[0].pixel_spacing
    if spacing is None or min(spacing) <= 0:
        raise GeometryError(
            f"Pixel Spacing is {spacing}", where=where, wanted="two spacings above 0 mm", fix="export the series again"
        )


def _check_one(
    slices: Sequence[Slice],
    what: str,
    values: Callable[[Slice], tuple[float, ...] | None],
    text: Callable[[Slice], str],
    tolerance: float,
    where: Path,
) -> None:
    """All slices share a fact; else the error names the few that differ from the most."""
    table = np.array([values(s) for s in slices], float)
    usual = Counter(tuple(line) for line in np.round(table, 2).tolist()).most_common(1)[0][0]
    normal = next(k for k, line in enumerate(np.round(table, 2).tolist()) if tuple(line) == usual)
    odd = np.flatnonzero(np.abs(table - table[normal]).max(axis=1) > tolerance).tolist()
    if not odd:
        return
    verb = "has" if len(odd) == 1 else "have"
    raise GeometryError(
        f"mixed {what}: {_count(len(odd), 'slice')} of {len(slices)} {verb} {text(slices[odd[0]])}, the others "
        f"{text(slices[normal])}: " + _listed([slices[k].name for k in odd]),
        where=where,
        wanted=f"one {what} in a series",
        fix="move these files into a folder of their own",
    )


# what must be equal in a series: its name, its numbers, how to write them, how far they may differ
_ALIKE: tuple[tuple[str, Callable[[Slice], tuple[float, ...] | None], Callable[[Slice], str], float], ...] = (
    ("size", lambda s: s.shape, lambda s: f"{s.shape[1]}x{s.shape[0]} pixels", 0),
    ("orientation", lambda s: s.orientation, lambda s: _text("directions", s.orientation), _DIRECTION_TOLERANCE),
    ("pixel spacing", lambda s: s.pixel_spacing, lambda s: _text("pixels in mm of", s.pixel_spacing), 1e-4),
)


def _text(what: str, numbers: tuple[float, ...] | None) -> str:
    return f"{what} {'/'.join(f'{v:.4g}' for v in numbers or ())}"


def _directions(item: Slice, where: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along a row, down a column, and their cross product."""
    row, column = np.array(item.orientation).reshape(2, 3)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        raise GeometryError(
            f"Image Orientation of {item.name} is {list(item.orientation or ())}",
            where=where,
            wanted="two unit vectors at a right angle",
            fix="export the series again",
        )
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    return row, column, normal / np.linalg.norm(normal)


def _check_depths(slices: Sequence[Slice], depths: np.ndarray, where: Path) -> None:
    """No two slices at one place, no gap, no change of spacing; ``depths`` ascending, in mm along the normal."""
    gaps = np.diff(depths)
    doubled = np.flatnonzero(gaps <= TOLERANCE_MM).tolist()
    if doubled:
        raise GeometryError(
            f"{_count(len(doubled), 'duplicated slice')} in {len(slices)}: "
            + _listed([f"{slices[k].name} and {slices[k + 1].name} at {depths[k]:.2f} mm" for k in doubled]),
            where=where,
            wanted="one slice at each position",
            fix="remove the copies, or keep each phase in a folder of its own",
        )
    usual = median_low(gaps.tolist())
    # two neighbours may each be off by the tolerance
    odd = np.flatnonzero(np.abs(gaps - usual) > 2 * tolerance_mm(usual))
    if not len(odd):
        return
    times = np.round(gaps[odd] / usual).astype(int)
    whole = np.abs(gaps[odd] - times * usual) <= 2 * tolerance_mm(usual) * np.maximum(times, 1)
    # a gap twice as wide here and there is a missing slice; three in a row, or many, are another spacing
    runs = bool((odd[2:] - odd[:-2] == 2).any())
    if whole.all() and (times >= 2).all() and not runs and len(odd) <= max(1, len(gaps) // 4):
        _raise_missing(slices, depths, odd, times, usual, where)
    raise GeometryError(
        f"the spacing changes: {usual:.4g} mm mostly, but "
        + _listed(
            [
                f"{gaps[k]:.4g} mm between {slices[k].name} and {slices[k + 1].name} at {depths[k]:.2f} mm"
                for k in odd.tolist()
            ]
        ),
        where=where,
        wanted="slices at one distance",
        fix="split the series at these slices, or export it again",
    )


def _raise_missing(
    slices: Sequence[Slice], depths: np.ndarray, odd: np.ndarray, times: np.ndarray, usual: float, where: Path
) -> None:
    number = int((times - 1).sum())
    places = [
        f"{', '.join(f'{depths[k] + m * usual:.2f}' for m in range(1, min(int(t), _SHOWN + 1)))} mm "
        f"(between {slices[k].name} and {slices[k + 1].name})"
        for k, t in zip(odd, times, strict=True)
    ]
    raise GeometryError(
        f"{_count(number, 'missing slice')}: {len(slices)} are there, none at {_listed(places)}",
        where=where,
        wanted=f"a slice every {usual:.4g} mm",
        fix="copy or export the series again",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
