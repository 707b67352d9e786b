"""Shapes against what geometry says: area, axes, hull, at any spacing and obliquity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.results.diameters import diameters
from hilum.results.shape import hull_of, moments, own_axes, sphericity, surface_of
from hilum.volume import Grid
from making_shapes import ball, cylinder, ellipsoid, ellipsoid_area_mm2, grid_around, rotation, world_of

SPACINGS = [(1.0, 1.0, 1.0), (0.5, 0.8, 0.8), (3.0, 0.8, 0.8)]
OBLIQUE = rotation(25, (1, 2, 0.5))
SKEW = rotation(40, (0.3, -1, 0.6))


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("turn", [None, OBLIQUE], ids=["straight", "oblique"])
def test_balls_and_ellipsoids_have_their_volume_and_area(
    spacing_mm: tuple[float, float, float], turn: np.ndarray | None
) -> None:
    for half in ((20.0, 20.0, 20.0), (26.0, 17.0, 14.0)):
        grid = grid_around((56, 56, 56), spacing_mm, turn)
        mask = ellipsoid(grid, (0.2, 0.3, -0.1), half, SKEW)
        volume_mm3 = 4 / 3 * np.pi * np.prod(half)
        area_mm2 = surface_of(mask, grid).total_mm2
        assert mask.sum() * grid.voxel_volume_mm3 == pytest.approx(volume_mm3, rel=0.01)
        assert area_mm2 == pytest.approx(ellipsoid_area_mm2(*half), rel=0.02)
        exact = np.pi ** (1 / 3) * (6 * volume_mm3) ** (2 / 3) / ellipsoid_area_mm2(*half)
        assert sphericity(mask.sum() * grid.voxel_volume_mm3, area_mm2) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_cylinders_have_their_volume_and_nearly_their_area(spacing_mm: tuple[float, float, float]) -> None:
    grid = grid_around((80, 80, 80), spacing_mm, OBLIQUE)
    mask = cylinder(grid, 14.0, 60.0, SKEW)
    assert mask.sum() * grid.voxel_volume_mm3 == pytest.approx(np.pi * 14**2 * 60, rel=0.01)
    # the two rims are sharp: a little is rounded off
    assert surface_of(mask, grid).total_mm2 == pytest.approx(2 * np.pi * 14 * (14 + 60), rel=0.05)


def test_ten_to_one_voxels_are_measured_within_a_few_percent() -> None:
    grid = grid_around((64, 64, 64), (7.0, 0.7, 0.7), OBLIQUE)
    half = (28.0, 24.0, 26.0)
    mask = ellipsoid(grid, (0.1, 0.2, 0.3), half)
    assert mask.sum() * grid.voxel_volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(half), rel=0.01)
    assert surface_of(mask, grid).total_mm2 == pytest.approx(ellipsoid_area_mm2(*half), rel=0.05)
    assert own_axes(mask, grid).extents_mm[0] == pytest.approx(56, abs=3.5)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 180),
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1),
    st.sampled_from([(1.0, 1.0, 1.0), (2.0, 0.9, 0.7)]),
)
def test_a_slanted_plane_has_no_stairs(
    degrees: float, axis: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    """Half of a box, cut by a plane at any angle: its faces in the middle add up to the disc there."""
    grid = grid_around((44, 44, 44), spacing)
    normal = rotation(degrees, axis) @ [0, 0, 1]
    faces = surface_of(world_of(grid) @ normal <= 0.1, grid)
    middle = grid.world(faces.inner / 2 + faces.outer / 2)
    near = (np.abs(middle @ normal) < 4) & (np.linalg.norm(middle - (middle @ normal)[:, None] * normal, axis=1) < 13)
    # a plane sees one angle only: at the worst 2 % on even voxels, 4 % on uneven ones; the disc's rim adds a little
    assert faces.area_mm2[near].sum() == pytest.approx(np.pi * 13**2, rel=0.03 if len(set(spacing)) == 1 else 0.055)


@settings(max_examples=25, deadline=None)
@given(
    st.permutations([0, 1, 2]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.integers(0, 5),
)
def test_listing_voxels_otherwise_changes_nothing(order: list[int], flips: tuple[bool, ...], pad: int) -> None:
    grid = grid_around((34, 30, 26), (2.0, 1.0, 0.7), OBLIQUE)
    mask = ellipsoid(grid, (0, 0, 0), (14, 9, 11), SKEW)
    turned = mask.transpose(order)
    affine = np.array(grid.affine)[:, [*order, 3]]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (turned.shape[axis] - 1)
            affine[:3, axis] *= -1
            turned = np.flip(turned, axis)
    wide = np.pad(turned, pad)
    there = Grid(turned.shape, affine).padded([pad] * 3, [pad] * 3)  # type: ignore[arg-type]
    assert surface_of(wide, there).total_mm2 == pytest.approx(surface_of(mask, grid).total_mm2, rel=1e-9)
    one, other = own_axes(mask, grid), own_axes(wide, there)
    assert other.centre_mm == pytest.approx(one.centre_mm)
    assert np.abs(np.sum(one.directions * other.directions, axis=1)) == pytest.approx(np.ones(3))
    assert other.extents_mm == pytest.approx(one.extents_mm, abs=0.55)  # the outline's diamond follows the slices
    assert hull_of(wide).sum() == hull_of(mask).sum()


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("turn", [None, OBLIQUE], ids=["straight", "oblique"])
def test_own_axes_are_those_of_the_ellipsoid(spacing_mm: tuple[float, float, float], turn: np.ndarray | None) -> None:
    grid = grid_around((64, 64, 64), spacing_mm, turn)
    axes = own_axes(ellipsoid(grid, (0.3, 0, 0), (30, 18, 11), SKEW), grid)
    assert axes.extents_mm == pytest.approx([60, 36, 22], abs=0.5 * max(spacing_mm) + 0.1)
    for direction, exact in zip(axes.directions, SKEW.T, strict=True):
        assert abs(direction @ exact) > 0.999
    assert axes.directions[0][2] > 0
    along = np.diff(axes.length_points_mm, axis=0)[0]
    assert np.linalg.norm(along) == pytest.approx(axes.extents_mm[0])
    assert np.abs(np.cross(along, axes.directions[0])).max() < 1e-9


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.8, 0.8), (3.0, 0.8, 0.8), (5.0, 0.5, 0.5)])
def test_diameters_of_slanted_shapes_are_within_half_a_voxel(spacing_mm: tuple[float, float, float]) -> None:
    grid = grid_around((50, 50, 50), spacing_mm)
    turn = rotation(33, (0, 0, 1))  # in the slice, so that the axial section is known
    size = diameters(ellipsoid(grid, (0, 0, 0), (22, 13, 20), turn), grid)
    off_mm = 0.0 if grid.shape[0] % 2 else spacing_mm[0] / 2  # the widest slice may lie half a slice off the centre
    share = np.sqrt(1 - (off_mm / 20) ** 2)
    assert size.long_mm == pytest.approx(44 * share, abs=0.5 * spacing_mm[1] + 0.05)
    assert size.short_mm == pytest.approx(26 * share, abs=spacing_mm[1])
    height_mm = spacing_mm[0] * (grid.shape[0] - 6)  # a whole number of slices, or the ends depend on their phase
    size = diameters(cylinder(grid, 12.0, height_mm, rotation(0)), grid)
    assert size.long_mm == pytest.approx(24, abs=0.5 * spacing_mm[1] + 0.05)
    assert size.any_direction_mm == pytest.approx(np.hypot(24, height_mm), abs=0.5 * max(spacing_mm) + 0.3)


def test_no_line_joins_two_outlines_of_a_slice() -> None:
    """A lesion like a horseshoe: two legs in the slices below, one arch above; the line stays in one of them."""
    grid = Grid((9, 40, 60), np.diag([2.0, 1.0, 1.0, 1.0]))
    mask = np.zeros(grid.shape, bool)
    mask[:6, 10:20, 5:15] = mask[:6, 10:22, 40:50] = True
    mask[5:8, 12:16, 8:45] = True
    size = diameters(mask, grid)
    assert size.slice_index == 5  # where arch and legs meet: one outline from the one leg to the other
    assert size.long_mm == pytest.approx(np.hypot(45, 12), abs=1.5)
    size = diameters(np.where(np.arange(9)[:, None, None] < 5, mask, False), grid)
    assert size.long_mm == pytest.approx(np.hypot(9.5, 11.5), abs=1) and size.short_mm < 16
    for ends in (size.long_points_mm, size.short_points_mm):
        assert (grid.index(ends)[:, 2] > 38).all() and (grid.index(ends)[:, 1] > 9).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=6))
def test_the_hull_is_convex_and_holds_its_points(points: list[tuple[int, int, int]]) -> None:
    mask = np.zeros((7, 7, 7), bool)
    mask[tuple(np.array(points).T)] = True
    hull = hull_of(mask)
    assert hull[mask].all() and (hull_of(hull) == hull).all()
    for one in points:
        for other in points:
            middle = (np.array(one) + other) / 2
            if (middle == middle.astype(int)).all():
                assert hull[tuple(middle.astype(int))]


def test_the_hull_of_what_is_convex_is_itself_and_a_bowl_is_filled() -> None:
    grid = grid_around((40, 40, 40), (1.0, 1.0, 1.0))
    whole = ball(grid, (0, 0, 0), 18)
    assert (hull_of(whole) == whole).all()
    bowl = whole & ~ball(grid, (10, 0, 0), 9)
    filled = hull_of(bowl)
    assert (filled & ~whole).sum() == 0 and filled[bowl].all() and filled[grid.shape[0] // 2, 20, 15]
    assert not hull_of(np.zeros((3, 3, 3), bool)).any()


def test_one_voxel_has_six_faces() -> None:
    grid = grid_around((4, 4, 4), (2.0, 1.0, 0.5))
    mask = np.zeros(grid.shape, bool)
    mask[1, 2, 3] = True
    faces = surface_of(mask, grid)
    assert len(faces.area_mm2) == 6
    assert faces.total_mm2 == pytest.approx(2 * (2 * 1 + 1 * 0.5 + 2 * 0.5))
    assert own_axes(mask, grid).extents_mm == pytest.approx([1.0, 0.5, 0.25])


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_moments_are_those_of_the_voxel_list(seed: int) -> None:
    mask = np.random.default_rng(seed).random((4, 5, 6)) > 0.6
    mask[1, 2, 3] = True
    mean, covariance = moments(mask)
    where = np.argwhere(mask)
    assert mean == pytest.approx(where.mean(axis=0))
    assert covariance == pytest.approx(np.cov(where.T, bias=True) if len(where) > 1 else np.zeros((3, 3)))
