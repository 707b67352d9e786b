"""Tiles cover every voxel, evenly, and weights are a symmetric Gaussian that never vanishes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import UsageError
from hilum.patches.tiles import LOWEST_WEIGHT, axis_starts, gaussian_weights, tile_starts

sizes = st.tuples(*[st.integers(1, 24)] * 3)


def test_worked_numbers() -> None:
    # 110 voxels, windows of 60, half overlap: 50 voxels of room, steps of at most 30 -> three windows, 25 apart
    assert axis_starts(110, 60, 0.5) == [0, 25, 50]
    assert axis_starts(128, 64, 0.0) == [0, 64]
    assert tile_starts((4, 4, 6), (4, 4, 4), 0.5) == [(0, 0, 0), (0, 0, 2)]


def test_volume_smaller_than_the_window_gets_one_window_at_zero() -> None:
    assert tile_starts((5, 9, 3), (8, 8, 8), 0.5) == [(0, 0, 0), (0, 1, 0)]


@given(shape=sizes, patch=sizes, overlap=st.floats(0, 0.99))
def test_every_voxel_is_covered_and_no_window_leaves_a_volume_that_can_hold_it(
    shape: tuple[int, int, int], patch: tuple[int, int, int], overlap: float
) -> None:
    covered = np.zeros(shape, bool)
    starts = tile_starts(shape, patch, overlap)
    for corner in starts:
        covered[tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))] = True
        assert all(c == 0 or c + p <= n for c, p, n in zip(corner, patch, shape, strict=True))
    assert covered.all()
    assert starts == sorted(set(starts))


@given(length=st.integers(1, 400), patch=st.integers(1, 200), overlap=st.floats(0, 0.9))
def test_neighbours_overlap_at_least_as_asked(length: int, patch: int, overlap: float) -> None:
    starts = axis_starts(length, patch, overlap)
    # half a voxel on both ends from rounding to whole voxels
    assert all(b - a <= max(1.0, patch * (1 - overlap)) + 1 for a, b in pairwise(starts))


def test_wrong_overlap_is_refused() -> None:
    with pytest.raises(UsageError, match="overlap 1"):
        tile_starts((9, 9, 9), (3, 3, 3), 1.0)


@given(patch=sizes)
def test_weights_are_symmetric_positive_and_at_most_one(patch: tuple[int, int, int]) -> None:
    weights = gaussian_weights(patch)
    assert weights.shape == patch and weights.dtype == np.float32
    assert weights.min() >= np.float32(LOWEST_WEIGHT) and weights.max() == 1
    np.testing.assert_array_equal(weights, weights[::-1, ::-1, ::-1])


def test_weight_one_standard_deviation_from_the_centre() -> None:
    weights = gaussian_weights((1, 1, 41))  # sigma 41 / 8 = 5.125 voxels; index 25 is 5 voxels off
    assert weights[0, 0, 25] == pytest.approx(np.exp(-0.5 * (5 / 5.125) ** 2), rel=1e-6)
