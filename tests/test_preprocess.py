"""Preparing a scan and going back: geometry exact in any orientation."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import GeometryError
from hilum.prepare.plan import Normalisation, Plan
from hilum.prepare.preprocess import prepare_labels, prepare_scan, undo_labels
from hilum.volume import Volume

SHARED = Path(__file__).parents[2] / "shared" / "data"
CODES = ["".join(c) for axes in permutations(("RL", "AP", "SI")) for c in product(*axes)]
PLAN = Plan(
    dims=3,
    spacing_mm=(2.0, 1.5, 1.5),
    patch=(16, 16, 16),
    batch=2,
    features=(8, 16),
    kernels=((3, 3, 3),) * 2,
    strides=((1, 1, 1), (2, 2, 2)),
    convs_per_stage=(2, 2),
    normalisation=Normalisation("ct", -50.0, 300.0, 100.0, 70.0),
    separate_z=False,
    median_shape=(20, 22, 24),
)


def scan(
    spacing_mm: tuple[float, ...] = (2.0, 1.5, 1.5), shape: tuple[int, ...] = (9, 11, 13), tilt: float = 0
) -> Volume:
    """In SPL order: array axes go up, to the back and to the left; ``tilt`` radians about the body's axis."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing_mm[0], -spacing_mm[1], -spacing_mm[2], 1
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = turn @ affine
    affine[:3, 3] = (31.5, -12.25, 700.0)
    array = np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)
    return Volume(array, affine, "scan")


def labels_on(volume: Volume) -> Volume:
    return volume.with_array((volume.array % 4).astype(np.uint8))


@pytest.mark.parametrize("codes", CODES)
def test_identity_round_trip_is_exact_in_every_orientation(codes: str) -> None:
    volume = scan(tilt=0.3).oriented(codes)
    labels = labels_on(volume)
    case = prepare_scan(volume, PLAN, "case")
    assert np.array_equal(case.image_DHW, volume.oriented().array) and case.image_DHW.dtype == np.int16
    prepared = prepare_labels(labels, case, PLAN)
    back = undo_labels(prepared, case)
    assert np.array_equal(back.array, labels.array)
    assert np.array_equal(back.affine, volume.affine) and back.shape == volume.shape


@settings(max_examples=20, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.6, 6.0)] * 3),
    shape=st.tuples(*[st.integers(2, 20)] * 3),
    codes=st.sampled_from(CODES),
    tilt=st.floats(-0.9, 0.9),
)
def test_undo_gives_the_scans_own_grid(
    spacing: tuple[float, ...], shape: tuple[int, ...], codes: str, tilt: float
) -> None:
    volume = scan(spacing, shape, tilt).oriented(codes)
    case = prepare_scan(volume, PLAN)
    prepared = prepare_labels(labels_on(volume), case, PLAN)
    assert prepared.shape == case.image_DHW.shape == case.grid.shape
    back = undo_labels(prepared, case)
    assert back.shape == volume.shape and np.array_equal(back.affine, volume.affine)


def test_the_prepared_grid_covers_the_same_extent() -> None:
    volume = scan((3.0, 0.7, 0.7), (10, 40, 44))
    case = prepare_scan(volume, PLAN)
    assert case.grid.shape == (15, 19, 21)
    for corner in ((0, 0, 0), (1, 1, 1)):
        old = volume.grid.world([-0.5 + c * n for c, n in zip(corner, volume.shape, strict=True)])
        new = case.grid.world([-0.5 + c * n for c, n in zip(corner, case.grid.shape, strict=True)])
        assert np.abs(old - new).max() < 1e-9


def test_a_ball_comes_back_where_it_was() -> None:
    volume = scan((1.0, 1.0, 1.0), (40, 40, 40))
    distance = np.sqrt(((np.indices(volume.shape) - 20.0) ** 2).sum(axis=0))
    ball = volume.with_array((distance < 12).astype(np.uint8)).oriented("RAS")
    case = prepare_scan(volume.oriented("RAS"), PLAN)
    back = undo_labels(prepare_labels(ball, case, PLAN), case)
    both = np.count_nonzero(back.array & ball.array)
    assert 2 * both / (back.array.sum() + ball.array.sum()) > 0.96


def test_two_dimensional_plans_leave_slices_alone() -> None:
    plan = replace(PLAN, dims=2, patch=(1, 16, 16))
    volume = scan((5.0, 0.75, 0.75), (6, 20, 24))
    case = prepare_scan(volume, plan)
    assert case.grid.shape == (6, 10, 12) and case.grid.spacing_mm == pytest.approx((5.0, 1.5, 1.5))


def test_thick_slices_are_not_blended() -> None:
    volume = scan((8.0, 1.5, 1.5), (5, 11, 13))
    case = prepare_scan(volume, PLAN)
    assert case.separate_z and case.grid.shape == (20, 11, 13)
    assert np.array_equal(case.image_DHW, np.repeat(volume.array, 4, axis=0))
    labels = labels_on(volume)
    prepared = prepare_labels(labels, case, PLAN)
    assert np.array_equal(prepared, np.repeat(labels.array, 4, axis=0))
    assert np.array_equal(undo_labels(prepared, case).array, labels.array)


def test_the_plan_chooses_how_labels_are_resampled() -> None:
    plan = replace(PLAN, spacing_mm=(1.5, 3.0, 3.0))
    volume = scan((1.5, 1.5, 1.5), (2, 4, 6))
    case = prepare_scan(volume, plan)
    array = np.zeros((2, 4, 6), np.uint8)
    array[:, 1, 3] = 2  # one voxel of the four that become one: a quarter of it, but the nearest (halves go up)
    labels = volume.with_array(array)
    array[:, 3, 5] = array[:, 2, 4] = array[:, 2, 5] = 1
    linear = prepare_labels(labels, case, plan)
    nearest = prepare_labels(labels, case, replace(plan, labels="nearest"))
    assert linear.shape == nearest.shape == (2, 2, 3)
    assert np.array_equal(nearest, array[:, 1::2, 1::2])
    assert linear[:, 0, 1].max() == 2 and linear[:, 1, 2].tolist() == [1, 1]  # no label is lost
    assert Plan.from_json(replace(plan, labels="nearest").to_json()).labels == "nearest"
    assert "labels" not in plan.to_json() and Plan.from_json(plan.to_json()) == plan


def test_values_beyond_int16_are_clipped_and_fractions_rounded() -> None:
    volume = scan()
    values = np.full(volume.shape, 40000.0, np.float32)
    values[0, 0, :3] = (-0.6, 0.4, -40000)
    image = prepare_scan(volume.with_array(values), PLAN).image_DHW
    assert image[0, 0, :4].tolist() == [-1, 0, -32768, 32767]


def test_labels_from_elsewhere_are_refused() -> None:
    volume = scan()
    case = prepare_scan(volume, PLAN, "case")
    labels = labels_on(volume)
    with pytest.raises(GeometryError, match="away"):
        prepare_labels(Volume(labels.array, labels.affine + np.eye(4, k=3) * 5, "moved"), case, PLAN)
    with pytest.raises(GeometryError, match="shape"):
        prepare_labels(labels.cropped((0, 0, 0), (9, 11, 12)), case, PLAN)
    with pytest.raises(GeometryError):
        prepare_labels(labels.cropped((0, 0, 0), (9, 11, 12)), case.grid, PLAN)
    with pytest.raises(GeometryError, match="as prepared"):
        undo_labels(np.zeros((3, 3, 3), np.uint8), case)
    assert np.array_equal(prepare_labels(labels, case.grid, PLAN), prepare_labels(labels, case, PLAN))


def test_real_ct_comes_back() -> None:
    folder = SHARED / "real" / "totalsegmentator_ct"
    if not folder.is_dir():
        pytest.skip("shared/data is absent: no real CT to prepare")
    from hilum.labels import scheme_from
    from hilum.scans import read_labels, read_scan

    volume, labels = read_scan(folder / "ct.nii.gz"), read_labels(folder / "labels.nii.gz", scheme_from("abdomen"))
    plan = replace(PLAN, spacing_mm=(2.0, 2.0, 2.0))
    case = prepare_scan(volume, plan)
    back = undo_labels(prepare_labels(labels, case, plan), case)
    assert np.array_equal(back.affine, volume.affine)
    assert (back.array == labels.array).mean() > 0.998
    counts = [np.bincount(array.ravel(), minlength=5) for array in (back.array, labels.array)]
    assert counts[0] == pytest.approx(counts[1], rel=0.02)
