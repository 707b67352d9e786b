"""How far grid points lie from the nearest of another set of grid points, exactly.

Comes in: two sets of points of one grid, as flat indices, and the spacing. Goes out: the distances of each set to the
other, mm, from whole index differences, as an exact Euclidean transform has them.

Three searches, each for what the one before has left, since each begins dearer and goes on cheaper:

* ``_walk``: points try the steps of the grid in the order of their length until one lands on the other set. Points of
  both sets are at 0 and cost nothing.
* ``_Lines``: a table says how far the nearest target on the same line of the grid is. A point asks the lines around
  its own, nearest first, until no line that is left can hold anything nearer: a search over two axes, not three.
* ``_tree_mm``: a k-d tree, for specks that are far from everything.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain, pairwise

import numpy as np
from scipy.spatial import cKDTree

Spacing = tuple[float, float, float]
Axes = tuple[np.ndarray, ...]
STEPS = 300
LINES = 1200


def both_ways(
    first: np.ndarray,
    second: np.ndarray,
    shape: tuple[int, ...],
    spacing_mm: Spacing,
    threads: int = 1,
    up_to_mm: float = np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of each set of grid points to the nearest of the other set.

    Args:
        first: (N,) flat indices into ``shape``, ascending.
        second: (M,) the same of the other set.
        shape: of the grid, three axes.
        spacing_mm: along each axis.
        threads: for the k-d tree; -1 takes all.
        up_to_mm: larger distances may come out infinite.

    Returns:
        (N,) and (M,) float64, mm; infinite where the other set is empty.
    """
    spacing = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    if not first.size or not second.size:
        return np.full(len(first), np.inf), np.full(len(second), np.inf)
    steps, lengths_mm, tried_mm = _steps(spacing, up_to_mm)
    margins = np.abs(steps).max(axis=0)
    wide = tuple(n + 2 * int(m) for n, m in zip(shape, margins, strict=True))
    moves = steps @ np.array([wide[1] * wide[2], wide[2], 1])
    points = [np.unravel_index(index, shape) for index in (first, second)]
    places = [np.ravel_multi_index(tuple(p + m for p, m in zip(of, margins, strict=True)), wide) for of in points]
    # memory that is never touched costs nothing, however far the surfaces scatter
    marked = np.zeros(wide[0] * wide[1] * wide[2], bool)
    further = up_to_mm > tried_mm
    distances = []
    for here, there in ((0, 1), (1, 0)):
        lines = _Lines(points[there], shape, spacing)
        marked[places[there]] = True
        found_mm = np.full(len(places[here]), np.inf)
        # a walk that need not go far is cheaper than the table at any rate
        left = _walk(places[here], marked, moves, lengths_mm, found_mm, lines.cells // 2 if further else None)
        marked[places[there]] = False
        if left.size and further:
            left = lines.search(tuple(of[left] for of in points[here]), left, found_mm)
        if left.size and further:
            far, targets = (np.stack(of, axis=1) for of in ([of[left] for of in points[here]], points[there]))
            found_mm[left] = _tree_mm(far, targets, spacing, threads, up_to_mm)
        distances.append(found_mm)
    return distances[0], distances[1]


def _walk(
    places: np.ndarray,
    marked: np.ndarray,
    moves: np.ndarray,
    lengths_mm: np.ndarray,
    found_mm: np.ndarray,
    work: int | None,
) -> np.ndarray:
    """Write the length of the shortest move to a marked place; return who found none.

    Gives up after ``work`` looks, if that is not None.
    """
    looks = 0
    left = np.arange(len(places))
    for move, mm in zip(moves.tolist(), lengths_mm.tolist(), strict=True):
        hit = marked.take(places + move)
        looks += len(hit)
        found_mm[left[hit]] = mm
        missed = np.flatnonzero(~hit)
        left, places = left.take(missed), places.take(missed)
        if not left.size or (work is not None and looks > work):
            break
    return left


@lru_cache(maxsize=64)
def _steps(spacing_mm: Spacing, up_to_mm: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Steps on the grid, (N, 3) whole numbers, their lengths in mm, ascending, and the length up to which none lacks.

    None being missing in between, the first to land on a surface is the shortest. That length is the radius of the
    ball, disc or line (the smallest, as voxels may be very flat or long) that holds ``STEPS`` points of the grid.
    """
    spacing = np.asarray(spacing_mm, np.float64)
    fine, middle, coarse = np.sort(spacing)
    ball_mm = np.cbrt(STEPS * fine * middle * coarse * 3 / (4 * np.pi))
    radius_mm = float(min(up_to_mm, ball_mm, np.sqrt(STEPS * fine * middle / np.pi), STEPS * fine / 2))
    every, parts_mm2 = _around(spacing, radius_mm)
    return every, np.sqrt(parts_mm2.sum(axis=1)), radius_mm


def _around(spacing: np.ndarray, radius_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """All steps up to a length, shortest first, (N, axes), and the square of each part, mm2."""
    reach = (radius_mm / spacing).astype(int) + 1
    every = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1)
    every = every.reshape(-1, len(spacing))
    parts_mm2 = (every * spacing) ** 2
    lengths = np.sqrt(parts_mm2.sum(axis=1))
    order = np.argsort(lengths, kind="stable")[: np.count_nonzero(lengths <= radius_mm)]
    return every[order], parts_mm2[order]


class _Lines:
    """Lines of a grid, along its finest axis (so that there are fewest others to ask), and the targets on them.

    Args:
        targets: an index array for each axis.
        shape: of the grid.
        spacing_mm: along each axis.
    """

    def __init__(self, targets: Axes, shape: tuple[int, ...], spacing_mm: Spacing):
        self.spacing_mm = spacing_mm
        self.along = min(range(3), key=lambda axis: (spacing_mm[axis], -axis))
        self.across = [axis for axis in range(3) if axis != self.along]
        self.length = shape[self.along]
        self.sides = tuple(shape[axis] for axis in self.across)
        self.targets = targets
        self.used = np.zeros(self.sides, bool)
        self.used[targets[self.across[0]], targets[self.across[1]]] = True

    @property
    def cells(self) -> int:
        """How large the table is, which tells when walking on is dearer than making it."""
        return int(np.count_nonzero(self.used)) * self.length

    def search(self, points: Axes, numbers: np.ndarray, found_mm: np.ndarray) -> np.ndarray:
        """Write the distances of points.

        Args:
            points: an index array for each axis.
            numbers: where in ``found_mm`` each point's distance goes.
            found_mm: written to.

        Returns:
            Of ``numbers`` those that lines further off could still bring nearer; nothing is written of them.
        """
        spacing = np.array([self.spacing_mm[axis] for axis in self.across])
        fine, coarse = np.sort(spacing)
        # the disc, or (lines may lie in far-off sheets) the row, that holds LINES of them
        radius_mm = min(np.sqrt(LINES * fine * coarse / np.pi), LINES * fine / 2)
        steps, parts_mm2 = _around(spacing, radius_mm)
        margins = np.abs(steps).max(axis=0)
        table, lines = self._table(margins)
        width, number = lines.shape[1], lines.ravel()
        here = (points[self.across[0]] + margins[0]) * width + points[self.across[1]] + margins[1]
        place = points[self.along] * (int(number.max()) + 1)
        own_mm2 = (np.arange(self.length + 1) * self.spacing_mm[self.along]) ** 2
        own_mm2[self.length] = np.inf  # a line without targets
        best = np.full(len(here), np.inf)
        length_mm2 = 0.0
        # a line costs some microseconds and some nanoseconds a point; the tree must be built first and costs as much as
        # hundreds of lines a point
        work = 100 * len(here) + 12 * len(self.targets[0])
        for move, (first_mm2, second_mm2) in zip((steps @ (width, 1)).tolist(), parts_mm2.tolist(), strict=True):
            if first_mm2 + second_mm2 > length_mm2:
                length_mm2 = first_mm2 + second_mm2
                going = best > length_mm2
                if not going.all():
                    found_mm[numbers[~going]] = np.sqrt(best[~going])
                    still = np.flatnonzero(going)
                    numbers, here, place, best = (of.take(still) for of in (numbers, here, place, best))
                if not numbers.size or work < 0:
                    return numbers
            work -= len(numbers) + 500
            # summed in the order of the axes, as others do: equal to the last bit
            if self.along == 2:
                mm2 = (first_mm2 + second_mm2) + own_mm2
            else:
                mm2 = (own_mm2 + first_mm2) + second_mm2
            np.minimum(best, mm2.take(table.take(number.take(here + move) + place)), out=best)
        done = best <= radius_mm**2
        found_mm[numbers[done]] = np.sqrt(best[done])
        left: np.ndarray = numbers[~done]
        return left

    def _table(self, margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Steps to the nearest target of the same line, for every place of the lines that hold targets.

        Args:
            margins: empty lines to add on either side of both axes.

        Returns:
            (length, used + 1), flattened, with ``length`` all along the first line, which stands for all without
            targets; and (rows, columns) which line is where.
        """
        count = int(np.count_nonzero(self.used))
        number = np.zeros(self.sides, np.intp)
        number[self.used] = np.arange(1, count + 1)
        # lines lie side by side, so that a step along all of them is one operation on a vector
        table = np.full((self.length, count + 1), self.length, np.int16 if self.length < 2**14 else np.int32)
        table[self.targets[self.along], number[self.targets[self.across[0]], self.targets[self.across[1]]]] = 0
        step = np.empty_like(table[0])
        for last, here in chain(pairwise(range(self.length)), pairwise(reversed(range(self.length)))):
            np.add(table[last], 1, out=step)
            np.minimum(table[here], step, out=table[here])
        pad = [(int(margin), int(margin)) for margin in margins]
        return table.ravel(), np.pad(number, pad)


def _tree_mm(points: np.ndarray, targets: np.ndarray, spacing_mm: Spacing, threads: int, up_to_mm: float) -> np.ndarray:
    spacing = np.asarray(spacing_mm, np.float64)
    # on a lattice, sliding midpoints build several times faster than medians and answer as fast; with leaves of 64
    # points instead of 10, queries take about 60 % of the time
    tree = cKDTree(targets * spacing, leafsize=64, balanced_tree=False, compact_nodes=False)
    _, index = tree.query(points * spacing, workers=threads, distance_upper_bound=up_to_mm * 1.001)
    distances_mm = np.full(len(points), np.inf)
    near = index < len(targets)  # the tree says so where nothing lies within the bound
    distances_mm[near] = np.sqrt((((points[near] - targets[index[near]]) * spacing) ** 2).sum(axis=1))
    return distances_mm
