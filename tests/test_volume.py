"""Voxels must stay at their world points whatever is done to the array."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import GeometryError
from hilum.volume import Grid, Volume, require_same_grid

ALL_CODES = ["".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)]


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    """Volumes with oblique, sheared, flipped affines; every voxel value is unique."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    shear = np.eye(3) + np.triu(rng.uniform(-0.2, 0.2, (3, 3)), 1)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ shear @ np.diag(rng.uniform(0.4, 5, 3))
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return Volume(np.arange(np.prod(shape)).reshape(shape), affine)


def places(volume: Volume) -> dict[int, tuple[float, ...]]:
    """Voxel value to its world position."""
    index = np.argwhere(np.ones(volume.shape, bool))
    world = np.round(volume.world(index), 6) + 0.0
    return {int(v): tuple(w) for v, w in zip(volume.array.ravel(), world, strict=True)}


def close(a: dict[int, tuple[float, ...]], b: dict[int, tuple[float, ...]]) -> bool:
    return all(np.allclose(a[v], b[v], atol=1e-5) for v in a.keys() & b.keys())


@pytest.mark.parametrize("degrees", [45, 135, 225, 315])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turning_back_ends_where_it_began_even_where_two_matches_are_equally_good(degrees: int, axis: int) -> None:
    a, b = (k for k in range(3) if k != axis)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[np.ix_((a, b), (a, b))] = [[c, -s], [s, c]]
    affine[:3, :3] *= (0.7, 0.7, 3.0)
    grid = Grid((4, 5, 6), affine)
    for codes in ALL_CODES:
        turned = grid.oriented(codes)
        assert turned.codes == codes
        assert turned.oriented(grid.codes).same_as(grid)


def test_codes_name_the_direction_in_which_an_index_grows() -> None:
    assert len(set(ALL_CODES)) == 48
    assert Grid((2, 2, 2), np.diag([1, 1, 1, 1])).codes == "RAS"
    assert Grid((2, 2, 2), np.diag([-1, -1, 2, 1])).codes == "LPS"
    kits = np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [-3, 0, 0, 0], [0, 0, 0, 1]])
    assert Grid((2, 2, 2), kits).codes == "IPL"
    assert Grid((2, 2, 2), kits).spacing_mm == pytest.approx((3, 0.8, 0.8))


def test_nibabel_names_the_axes_alike() -> None:
    nib = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    for _ in range(50):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[rng.permutation(3)] * rng.choice([-1.5, 1.5], 3)
        affine[:3, :3] += rng.uniform(-0.5, 0.5, (3, 3))  # below 45 degrees, where every rule agrees
        assert Grid((2, 3, 4), affine).codes == "".join(nib.aff2axcodes(affine))


def test_inside_order_shows_axial_slices_as_radiologists_look_at_them() -> None:
    array = np.zeros((4, 5, 6))
    ras = Volume(array, np.diag([1.0, 1.0, 1.0, 1.0]))
    inside = ras.oriented()
    assert inside.codes == "SPL" and inside.shape == (6, 5, 4)
    assert inside.world([0, 0, 0]).tolist() == [3, 4, 0]  # first voxel: lowest, most anterior, most right


@given(volumes(), st.sampled_from(ALL_CODES))
def test_orienting_moves_no_voxel_and_undoes_itself(volume: Volume, codes: str) -> None:
    turned = volume.oriented(codes)
    assert turned.codes == codes
    assert close(places(volume), places(turned))
    back = turned.oriented(volume.codes)
    assert np.array_equal(back.array, volume.array) and back.grid.same_as(volume.grid, 1e-6)


@settings(max_examples=60)
@given(volumes(), st.lists(st.sampled_from(["orient", "crop", "pad"]), max_size=5), st.randoms(use_true_random=False))
def test_any_chain_undone_gives_the_same_voxels_at_the_same_points(volume: Volume, chain: list[str], rng) -> None:  # type: ignore[no-untyped-def]
    now, undo = volume, []
    for kind in chain:
        if kind == "orient":
            undo.append(("orient", now.codes))
            now = now.oriented(rng.choice(ALL_CODES))
        elif kind == "pad":
            before, after = [[rng.randint(0, 3) for _ in range(3)] for _ in range(2)]
            undo.append(("crop", before, [b + n for b, n in zip(before, now.shape, strict=True)]))
            now = now.padded(before, after, -1)
        else:
            start = [rng.randint(0, n - 1) for n in now.shape]
            stop = [rng.randint(a + 1, n) for a, n in zip(start, now.shape, strict=True)]
            undo.append(("paste", now, start, stop))
            now = now.cropped(start, stop)
        assert close(places(volume), {v: p for v, p in places(now).items() if v >= 0})
    for kind, *rest in reversed(undo):
        if kind == "orient":
            now = now.oriented(rest[0])
        elif kind == "crop":
            now = now.cropped(*rest)
        else:
            whole, start, stop = rest
            array = whole.array.copy()
            array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = now.array
            now = whole.with_array(array)
    assert np.array_equal(now.array, volume.array)
    assert now.grid.same_as(volume.grid, 1e-6)


@given(volumes())
def test_world_and_index_are_inverse(volume: Volume) -> None:
    points = np.random.default_rng(1).uniform(-5, 9, (7, 3))
    assert np.allclose(volume.index(volume.world(points)), points, atol=1e-6)


@given(volumes(), st.tuples(*[st.integers(1, 9)] * 3))
def test_reshaping_keeps_the_outer_edges(volume: Volume, shape: tuple[int, int, int]) -> None:
    grid = volume.grid.reshaped(shape)
    assert np.allclose(grid.world([-0.5] * 3), volume.world([-0.5] * 3), atol=1e-6)
    far_new, far_old = np.array(grid.shape) - 0.5, np.array(volume.shape) - 0.5
    assert np.allclose(grid.world(far_new), volume.world(far_old), atol=1e-6)


def test_shear_is_kept_and_voxel_volume_is_the_determinant() -> None:
    affine = np.array([[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    grid = Grid((3, 3, 3), affine)
    assert grid.voxel_volume_mm3 == pytest.approx(2.0)
    assert grid.spacing_mm[2] == pytest.approx(np.sqrt(4.25))
    assert grid.oriented("SPL").oriented("RAS").same_as(grid)
    assert grid.obliqueness_degrees == pytest.approx(np.degrees(np.arccos(2 / np.sqrt(4.25))))


@pytest.mark.parametrize(
    ("affine", "found"),
    [
        (np.zeros((4, 4)), "singular"),
        (np.diag([1, 0, 1, 1.0]), "singular"),
        (np.full((4, 4), np.nan), "finite"),
        (np.eye(3), "4x4"),
    ],
)
def test_impossible_geometry_is_refused(affine: np.ndarray, found: str) -> None:
    with pytest.raises(GeometryError, match=found):
        Volume(np.zeros((2, 2, 2)), affine, "scan.nii")


def test_volumes_have_three_axes() -> None:
    with pytest.raises(GeometryError, match="2 axes"):
        Volume(np.zeros((2, 2)), np.eye(4), "slice.nii")


def test_crops_and_codes_out_of_range_are_refused() -> None:
    grid = Grid((2, 2, 2), np.eye(4))
    with pytest.raises(GeometryError, match="crop"):
        grid.cropped([0, 0, 0], [3, 1, 1])
    with pytest.raises(GeometryError, match="axis codes"):
        grid.oriented("RRS")
    with pytest.raises(GeometryError, match="axis codes"):
        grid.oriented("XYZ")


def test_two_volumes_off_each_other_are_told_apart() -> None:
    truth = Volume(np.zeros((2, 2, 2)), np.eye(4), "truth.nii")
    require_same_grid(truth, truth)
    moved = np.eye(4)
    moved[0, 3] = 3
    with pytest.raises(GeometryError, match=r"moved.nii: lies up to 3.0 mm away from truth.nii"):
        require_same_grid(truth, Volume(np.zeros((2, 2, 2)), moved, "moved.nii"))
    with pytest.raises(GeometryError, match=r"shape \(2, 2, 3\), but truth.nii has \(2, 2, 2\)"):
        require_same_grid(truth, Volume(np.zeros((2, 2, 3)), np.eye(4), "long.nii"))
