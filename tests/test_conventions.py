from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from hilum.inference.cascade import on_grid
from hilum.patches.tiles import gaussian_weights, window_weights
from hilum.prepare.conventions import OWN, Conventions, box_to_look_at, inside_codes, nearest_axis, own_intensities
from hilum.prepare.preprocess import placed, prepare_scan
from hilum.prepare.resample import ImageSlabs
from hilum.volume import Volume
from threshold_model import grid_of, make_plan

NNUNET = Conventions(axes="file", clip_first=True, nearest="nnunet", crop="nonzero", padding="mean", window="nnunet")


def test_conventions_travel() -> None:
    said = replace(NNUNET, transpose=(1, 0, 2))
    assert Conventions.from_json(asdict(said) | {"transpose": [1, 0, 2]}) == said
    plan = make_plan((8, 8, 8), (1, 1, 1))
    assert "conventions" not in plan.to_json()
    told = replace(plan, conventions=said)
    assert type(plan).from_json(told.to_json()) == told


@pytest.mark.parametrize(
    ("codes", "conventions", "inside"),
    [
        ("LPS", OWN, "SPL"),
        ("RAS", NNUNET, "SAR"),
        ("RAS", replace(NNUNET, transpose=(2, 0, 1)), "RSA"),
        ("LPS", replace(OWN, axes="RAS"), "RAS"),
    ],
)
def test_axes(codes: str, conventions: Conventions, inside: str) -> None:
    grid = grid_of((3, 4, 5), (1, 1, 1)).oriented(codes)
    assert inside_codes(grid, conventions) == inside


def test_which_axis_is_thick() -> None:
    assert nearest_axis((5, 1, 1), (1, 1, 1), NNUNET) == 0
    assert nearest_axis((1, 1, 1), (1, 4, 1), NNUNET) == 1
    assert nearest_axis((3, 1, 1), (1, 1, 1), NNUNET) is None  # exactly three times is not more
    assert nearest_axis((0.24, 1.25, 1.25), (1, 1, 1), NNUNET) is None  # two equally coarse axes
    assert nearest_axis((5, 1, 1), (1, 1, 1), OWN) is None


@given(st.integers(1, 40))
def test_the_window_is_nnunets(n: int) -> None:
    delta = np.zeros((n, 1, 1))
    delta[n // 2] = 1
    theirs = gaussian_filter(delta, [n / 8, 1 / 8, 1 / 8], mode="constant")
    theirs = (10 * theirs / theirs.max()).astype(np.float16)
    theirs[theirs == 0] = theirs[theirs > 0].min()
    assert np.allclose(window_weights((n, 1, 1), "nnunet"), theirs.astype(np.float32) / 10, atol=2e-4)
    assert (window_weights((n, 1, 1), "constant") == 1).all()
    assert np.array_equal(window_weights((n, 1, 1), "gaussian"), gaussian_weights((n, 1, 1)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_a_thick_axis_the_nearest_slice_is_taken(axis: int) -> None:
    image = np.random.default_rng(axis).normal(size=(6, 7, 8)).astype(np.float32)
    shape = [9, 10, 11]
    slabs = ImageSlabs(image, shape, order=1, nearest_axis=axis)
    made = np.empty(shape, np.float32)
    slabs.fill(made, 0)
    sharp = list(image.shape)
    sharp[axis] = shape[axis]
    places = np.indices(sharp).astype(float)
    places[axis] = (places[axis] + 0.5) * image.shape[axis] / shape[axis] - 0.5
    picked = map_coordinates(image, places, order=0, mode="nearest")
    factors = [n / m for n, m in zip(shape, sharp, strict=True)]
    assert np.allclose(made, zoom(picked, factors, order=1, mode="nearest", grid_mode=True), atol=1e-5)


@given(st.tuples(*[st.integers(2, 30)] * 3), st.tuples(*[st.integers(2, 40)] * 3), st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_thick_slices_as_nnunet_resamples_them(old: tuple[int, int, int], new: tuple[int, int, int], axis: int) -> None:
    """Every slice by a cubic spline in plane, then order 0 between slices (its ``resample_data_or_seg``)."""
    image = np.random.default_rng(sum(old)).integers(-1024, 3000, old).astype(np.int16)
    slices = []
    for one in np.moveaxis(image.astype(float), axis, 0):
        flat = [n for place, n in enumerate(new) if place != axis]
        factors = [n / m for n, m in zip(flat, one.shape, strict=True)]
        made = zoom(one, factors, order=3, mode="nearest", grid_mode=True)
        slices.append(made.clip(one.min(), one.max()))
    scale = old[axis] / new[axis]
    places = np.indices([new[axis], *slices[0].shape]).astype(float)
    places[0] = scale * (places[0] + 0.5) - 0.5
    wanted = np.moveaxis(map_coordinates(np.stack(slices), places, order=0, mode="nearest"), 0, axis)
    slabs = ImageSlabs(image, new, nearest_axis=axis)
    made = np.empty(new, np.float32)
    slabs.fill(made, 0)
    assert np.abs(made - wanted).max() < 0.05


def test_clipping_comes_before_resampling() -> None:
    image = np.zeros((4, 4, 4), np.int16)
    image[2:] = 1000
    clipped, whole = np.empty((7, 4, 4), np.float32), np.empty((7, 4, 4), np.float32)
    ImageSlabs(image, (7, 4, 4), clip=(0, 100)).fill(clipped, 0)
    ImageSlabs(image.clip(0, 100), (7, 4, 4)).fill(whole, 0)
    assert np.array_equal(clipped, whole) and clipped.max() == 100


@given(st.tuples(*[st.integers(0, 3)] * 3), st.sampled_from(["LPS", "RAS", "SPL", "AIR"]))
@settings(max_examples=30, deadline=None)
def test_what_was_cropped_comes_back_to_its_place(margin: tuple[int, int, int], codes: str) -> None:
    array = np.zeros((8, 9, 10), np.int16)
    a, b, c = margin
    array[a : a + 4, b : b + 5, c : c + 6] = 7
    volume = Volume.on(grid_of(array.shape, (2, 1.5, 1)), array).oriented(codes)
    plan = replace(make_plan((4, 4, 4), (2, 1.5, 1)), conventions=NNUNET)
    case = prepare_scan(volume, plan)
    assert sorted(case.source_inside.shape) == [4, 5, 6]
    back = placed(Volume.on(case.source_inside, np.ones(case.source_inside.shape, np.uint8)), case.source)
    assert np.array_equal(back, (volume.array == 7).astype(np.uint8))


def test_an_empty_scan_is_looked_at_whole() -> None:
    assert box_to_look_at(np.zeros((3, 3, 3)), NNUNET) is None


def test_a_scan_s_own_intensities() -> None:
    array = np.zeros((5, 5, 5), np.float32)
    array[1:4, 1:4, 1:4] = np.arange(27).reshape(3, 3, 3) + 1
    array[2, 2, 2] = 0  # a hole belongs to it
    _, mean, std = own_intensities(array, replace(NNUNET, intensities="scan"))
    assert np.isclose(mean, array.mean()) and np.isclose(std, array.std())
    filled, mean, std = own_intensities(array, replace(NNUNET, intensities="scan_nonzero"))
    inner = array[1:4, 1:4, 1:4]
    assert np.isclose(mean, inner.mean()) and np.isclose(std, inner.std())
    assert np.isclose(filled[0, 0, 0], mean) and filled[2, 2, 2] == 0


def test_labels_of_a_cascade_are_there_from_one_half() -> None:
    classes = np.zeros((4, 4, 4), np.uint8)
    classes[2:] = 2
    classes[3, 3, 3] = 1
    made = on_grid(classes, (8, 4, 4), None)
    # shares of the mask at 3.5 and 4.5 of 8: 0.25 and 0.75 of the way between slices 1 and 2
    assert made[:4, 0, 0].max() == 0 and made[4:, 0, 0].min() == 2 and (made[:, 3, 3] == 1).sum() == 2
    assert np.array_equal(on_grid(classes, (4, 4, 4), None), classes)
