"""Surfels, their areas, and distances against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from hilum.judge.nearest import Spacing
from hilum.judge.surface import border_voxels, surfel_distances, voxel_distances
from hilum.judge.surfels import area_table, normal_table, surfels

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)
MASKS = SHAPES.flatmap(lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape)))
SPACINGS = st.tuples(*(st.sampled_from((0.5, 0.7, 1.0, 2.5, 5.0)),) * 3)


def corner_codes(mask: np.ndarray) -> np.ndarray:
    """Patterns one corner at a time, as the definition reads."""
    padded = np.pad(mask, 1).astype(int)
    weights = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]])
    codes = np.zeros(tuple(n + 1 for n in mask.shape), int)
    for i, j, k in np.ndindex(codes.shape):
        codes[i, j, k] = (padded[i : i + 2, j : j + 2, k : k + 2] * weights).sum()
    return codes


def by_hand(a: np.ndarray, b: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the set points of a to those of b, every pair measured; and the points of a."""
    points, targets = np.argwhere(a), np.argwhere(b)
    if not len(targets):
        return np.full(len(points), np.inf), points
    gaps = (points[:, None] - targets[None]) * np.array(spacing)
    return np.sqrt((gaps**2).sum(axis=2)).min(axis=1), points


def test_area_of_a_single_voxel_and_of_a_wall() -> None:
    # eight corners, each with one triangle of sides through three edge middles: sqrt(3) / 8 of a unit voxel
    index, codes = surfels(np.ones((1, 1, 1), bool))
    assert len(index) == 8
    assert area_table((1, 1, 1))[codes].sum() == pytest.approx(math.sqrt(3), abs=1e-12)
    # the inner corners of a wall carry just the face between four voxels
    assert area_table((2.0, 3.0, 5.0))[15] == 15.0
    assert area_table((2.0, 3.0, 5.0))[[0, 255]].tolist() == [0, 0]


def test_table_is_the_same_inside_out_and_in_every_direction() -> None:
    table = normal_table()
    assert table.shape == (256, 4, 3)
    assert np.array_equal(table, table[::-1])
    assert (table.any(axis=(1, 2)).sum()) == 254
    assert not table.flags.writeable


def test_area_of_a_ball_comes_near_to_its_surface() -> None:
    grid = np.indices((42, 42, 42)) - 20.5
    ball = (grid**2).sum(axis=0) < 18**2
    area = surfel_distances(ball, ball, (1, 1, 1)).areas_mm2()[0]
    # marching cubes on yes-or-no voxels overestimates curved surfaces by nearly a tenth
    assert area == pytest.approx(4 * math.pi * 18**2, rel=0.1)


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_surfels_agree_with_the_definition(masks: tuple[np.ndarray, np.ndarray]) -> None:
    codes = corner_codes(masks[0])
    index, found = surfels(masks[0])
    want = np.flatnonzero((codes != 0) & (codes != 255))
    assert np.array_equal(index, want)
    assert np.array_equal(found, codes.ravel()[want])


@given(MASKS, st.sampled_from((1, 2)))
@settings(max_examples=60, deadline=None)
def test_border_voxels_agree_with_erosion(masks: tuple[np.ndarray, np.ndarray], connectivity: int) -> None:
    mask = masks[0]
    eroded = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, connectivity))
    assert np.array_equal(border_voxels(mask, connectivity), np.flatnonzero(mask & ~eroded))


@given(MASKS, SPACINGS)
@settings(max_examples=60, deadline=None)
def test_surfel_distances_agree_with_brute_force(masks: tuple[np.ndarray, np.ndarray], spacing: Spacing) -> None:
    codes = [corner_codes(mask) for mask in masks]
    sides = [(code != 0) & (code != 255) for code in codes]
    got = surfel_distances(*masks, spacing)
    np.testing.assert_allclose(got.truth_mm, by_hand(sides[0], sides[1], spacing)[0], rtol=1e-12)
    np.testing.assert_allclose(got.prediction_mm, by_hand(sides[1], sides[0], spacing)[0], rtol=1e-12)
    if all(mask.any() for mask in masks):
        transform = ndimage.distance_transform_edt(~sides[1], sampling=spacing)
        np.testing.assert_allclose(got.truth_mm, transform[sides[0]], rtol=1e-12)


@given(MASKS, SPACINGS, st.sampled_from((1, 2)))
@settings(max_examples=60, deadline=None)
def test_voxel_distances_agree_with_brute_force(
    masks: tuple[np.ndarray, np.ndarray], spacing: Spacing, connectivity: int
) -> None:
    sides = [np.zeros(mask.shape, bool) for mask in masks]
    for side, mask in zip(sides, masks, strict=True):
        side.ravel()[border_voxels(mask, connectivity)] = True
    got = voxel_distances(*masks, spacing, connectivity)
    there, back = by_hand(sides[0], sides[1], spacing)[0], by_hand(sides[1], sides[0], spacing)[0]
    np.testing.assert_allclose(got.truth_mm, there, rtol=1e-12)
    np.testing.assert_allclose(got.prediction_mm, back, rtol=1e-12)
    if all(mask.any() for mask in masks):
        every = np.concatenate([there, back])
        assert got.hausdorff_mm() == pytest.approx(every.max(), rel=1e-12)
        assert got.hausdorff_mm(95) == pytest.approx(np.percentile(every, 95), rel=1e-12)
        assert got.assd_mm() == pytest.approx(every.mean(), rel=1e-12)
        assert got.rmsd_mm() == pytest.approx(np.sqrt((every**2).mean()), rel=1e-12)


@given(MASKS, SPACINGS)
@settings(max_examples=40, deadline=None)
def test_symmetry_identity_and_growth_with_tolerance(masks: tuple[np.ndarray, np.ndarray], spacing: Spacing) -> None:
    there, back = surfel_distances(*masks, spacing), surfel_distances(*masks[::-1], spacing)
    shares = [there.nsd(tolerance) for tolerance in (0, 0.5, 1, 2, 5, 100)]
    if any(mask.any() for mask in masks):
        np.testing.assert_allclose(shares, [back.nsd(tolerance) for tolerance in (0, 0.5, 1, 2, 5, 100)], rtol=1e-12)
        assert all(0 <= a <= b <= 1 + 1e-12 for a, b in itertools.pairwise(shares))
        assert there.average_mm() == pytest.approx(back.average_mm()[::-1], nan_ok=True)
    if masks[0].any():
        same = surfel_distances(masks[0], masks[0], spacing)
        assert same.nsd(0) == 1
        assert same.robust_hausdorff_mm(95) == same.average_mm()[0] == 0


@given(MASKS, SPACINGS, st.permutations(range(3)), st.tuples(*(st.booleans(),) * 3))
@settings(max_examples=40, deadline=None)
def test_axes_may_be_turned_with_their_spacing(
    masks: tuple[np.ndarray, np.ndarray], spacing: Spacing, axes: list[int], flips: tuple[bool, ...]
) -> None:
    turned = [m.transpose(axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)] for m in masks]
    new_spacing = (spacing[axes[0]], spacing[axes[1]], spacing[axes[2]])
    old, new = surfel_distances(*masks, spacing), surfel_distances(turned[0], turned[1], new_spacing)
    for measure in (lambda d: d.nsd(1.1), lambda d: d.areas_mm2()[0], lambda d: d.average_mm()[0]):
        assert measure(new) == pytest.approx(measure(old), rel=1e-9, nan_ok=True)
    a, b = voxel_distances(*masks, spacing), voxel_distances(turned[0], turned[1], new_spacing)
    assert a.hausdorff_mm() == pytest.approx(b.hausdorff_mm(), rel=1e-9, nan_ok=True)
    assert a.assd_mm() == pytest.approx(b.assd_mm(), rel=1e-9, nan_ok=True)


def test_tolerance_is_inclusive() -> None:
    masks = np.zeros((2, 4, 4, 12), bool)
    masks[0, 1:3, 1:3, 1:6] = True
    masks[1, 1:3, 1:3, 1:7] = True
    distances = surfel_distances(masks[0], masks[1], (1.0, 1.0, 2.5))
    assert distances.nsd(2.5) == 1
    assert distances.nsd(2.4999) < 1
    assert distances.robust_hausdorff_mm(100) == 2.5


def test_empty_sides() -> None:
    one, none = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    missed, nothing = surfel_distances(one, none, (1, 1, 1)), surfel_distances(none, none, (1, 1, 1))
    assert missed.nsd(1000) == 0
    assert np.isinf(missed.truth_mm).all()
    assert missed.robust_hausdorff_mm(95) == math.inf
    assert math.isnan(nothing.nsd(1))
    assert math.isnan(nothing.robust_hausdorff_mm(95))
    assert voxel_distances(one, none, (1, 1, 1)).hausdorff_mm(95) == math.inf
    assert math.isnan(voxel_distances(none, none, (1, 1, 1)).assd_mm())


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.8, 0.8), (500.0, 0.1, 0.1), (300.0, 300.0, 0.1)])
def test_near_steps_and_far_queries_agree_with_the_exact_transform(spacing: Spacing) -> None:
    rng = np.random.default_rng(3)
    sides = [rng.random((24, 30, 34)) < share for share in (0.002, 0.0005)]  # gaps from one voxel to dozens
    got = voxel_distances(sides[0], sides[1], spacing)
    for mm, side, other in ((got.truth_mm, *sides), (got.prediction_mm, *sides[::-1])):
        transform = ndimage.distance_transform_edt(~other, sampling=spacing)
        np.testing.assert_allclose(mm, transform[side], rtol=1e-12)


@given(MASKS, SPACINGS, st.sampled_from((0.0, 0.7, 1.0, 1.15, 2.5, 9.0)))
@settings(max_examples=40, deadline=None)
def test_distances_up_to_a_limit_suffice_below_it(
    masks: tuple[np.ndarray, np.ndarray], spacing: Spacing, limit: float
) -> None:
    every, near = surfel_distances(*masks, spacing), surfel_distances(*masks, spacing, up_to_mm=limit)
    for whole, part in ((every.truth_mm, near.truth_mm), (every.prediction_mm, near.prediction_mm)):
        below = whole <= limit
        assert np.array_equal(part[below], whole[below])
        assert (part[~below] > limit).all()


def test_a_limit_finer_than_the_steps_reach_asks_the_tree() -> None:
    masks = np.zeros((2, 3, 3, 400), bool)
    masks[0, 1, 1, 100], masks[1, 1, 1, 180] = True, True
    far = surfel_distances(masks[0], masks[1], (0.01, 0.01, 0.01), up_to_mm=2.0)
    assert far.truth_mm.min() == pytest.approx(0.79)
    assert np.isinf(surfel_distances(masks[0], masks[1], (0.01, 0.01, 0.01), up_to_mm=0.5).truth_mm).all()


def test_specks_all_over_cost_no_more_than_their_lines() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((40, 50, 60)) < 0.001
    index, codes = surfels(mask)
    want = corner_codes(mask[:8, :8, :8])
    assert len(index) > 0
    assert codes.dtype == np.uint8
    index, codes = surfels(mask[:8, :8, :8])
    assert np.array_equal(codes, want.ravel()[index])
