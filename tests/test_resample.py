"""Resampling: equal to scipy, bounded by the input, labels kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hilum.labels import count_labels
from hilum.prepare.resample import resample_image, resample_labels

SHAPES = st.tuples(*[st.integers(1, 40)] * 3)


def _scipy(image: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    """What nnU-Net computes: scipy's zoom with edges aligned, clipped to the input's range."""
    zoom = [n / o for n, o in zip(shape, image.shape, strict=True)]
    out = ndimage.zoom(image.astype(np.float64), zoom, order=order, mode="nearest", grid_mode=True)
    assert out.shape == tuple(shape)
    return np.clip(out, image.min(), image.max())


def _hu(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 3000, shape).astype(np.int16)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(
    ("old", "new"),
    [((61, 70, 55), (40, 31, 77)), ((9, 64, 64), (30, 33, 64)), ((1, 5, 2), (4, 9, 7)), ((80,) * 3, (41,) * 3)],
)
def test_image_equals_scipy(order: int, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    image = _hu(old)
    assert np.abs(resample_image(image, new, order=order) - _scipy(image, new, order)).max() < 0.01


@settings(max_examples=25, deadline=None)
@given(old=SHAPES, new=SHAPES, seed=st.integers(0, 99))
def test_cubic_equals_scipy_for_any_shapes(old: tuple[int, ...], new: tuple[int, ...], seed: int) -> None:
    image = _hu(old, seed)
    assert np.abs(resample_image(image, new) - _scipy(image, new, 3)).max() < 0.05


def test_nearest_equals_scipy() -> None:
    image = _hu((20, 21, 22))
    assert np.array_equal(resample_image(image, (31, 11, 22), order=0), _scipy(image, (31, 11, 22), 0))


def test_separate_z_is_cubic_in_plane_and_nearest_along_z() -> None:
    image = _hu((6, 40, 44))
    slices = np.stack([_scipy(one, (25, 60), 3) for one in image])
    wanted = slices[np.floor((np.arange(19) + 0.5) * 6 / 19).astype(int)]
    found = resample_image(image, (19, 25, 60), separate_z=True)
    assert np.abs(found - wanted).max() < 0.01
    assert np.array_equal(found[0], found[1])


def test_a_line_stays_a_line_between_the_edges() -> None:
    # worked: voxel centres 0..9 hold 10 * index; every second half-voxel lies at (n + 0.5) / 2 - 0.5
    line = np.tile(np.arange(200.0) * 10, (3, 3, 1))
    found = resample_image(line, (3, 3, 400))[1, 1]
    assert found[200] == pytest.approx(10 * (200.5 / 2 - 0.5), abs=0.01)
    assert found[201] == pytest.approx(10 * (201.5 / 2 - 0.5), abs=0.01)


@settings(max_examples=25, deadline=None)
@given(old=SHAPES, new=SHAPES)
def test_never_leaves_the_range_of_the_input(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    image = np.where(_hu(old) > 900, 1000, -1000).astype(np.int16)
    found = resample_image(image, new)
    assert found.min() >= image.min() and found.max() <= image.max()


def test_constant_stays_constant() -> None:
    assert (resample_image(np.full((7, 8, 9), -1000, np.int16), (13, 5, 9), dtype=np.int16) == -1000).all()


def test_whole_numbers_are_rounded_not_cut() -> None:
    image = _hu((30, 30, 30))
    as_float = resample_image(image, (20, 41, 30))
    as_int = resample_image(image, (20, 41, 30), dtype=np.int16)
    assert as_int.dtype == np.int16 and np.abs(as_int - as_float).max() <= 0.5
    wide = np.full((2, 2, 2), 70000.0, np.float32)
    assert (resample_image(wide, (2, 2, 2), dtype=np.int16) == 32767).all()
    assert (resample_image(np.full((2, 2, 2), -0.6, np.float32), (2, 2, 2), dtype=np.int16) == -1).all()


def test_equal_shape_is_a_copy() -> None:
    image = _hu((4, 5, 6))
    found = resample_image(image, (4, 5, 6), dtype=np.int16)
    assert np.array_equal(found, image) and not np.shares_memory(found, image)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_views_change_nothing(threads: int) -> None:
    image = _hu((70, 40, 50))
    view = np.asfortranarray(image[::-1, :, ::-1])[::-1, :, ::-1]
    assert np.array_equal(
        resample_image(view, (100, 30, 60), threads=threads), resample_image(image, (100, 30, 60), threads=1)
    )


def _soft_argmax(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The definition, voxel by voxel: the largest linearly interpolated share, the higher label at ties."""
    values = np.unique(labels)
    shares = [_scipy((labels == v).astype(float), shape, 1) for v in values]
    return values[len(values) - 1 - np.argmax(np.round(shares, 6)[::-1], axis=0)]


def test_labels_are_the_largest_share() -> None:
    labels = np.zeros((24, 30, 28), np.uint8)
    labels[5:20, 4:22, 6:25] = 1
    labels[9:15, 10:16, 8:17] = 2
    labels[12:18, 14:20, 15:23] = 7
    for shape in ((24, 45, 61), (37, 17, 19), (12, 15, 14)):
        assert np.array_equal(resample_labels(labels, shape), _soft_argmax(labels, shape))


def test_nearest_labels_equal_scipy() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (11, 12, 13)).astype(np.uint8)
    assert np.array_equal(resample_labels(labels, (7, 25, 13), nearest=True), _scipy(labels, (7, 25, 13), 0))


def test_a_lesion_of_one_voxel_survives_coarser_voxels() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[4:30, 4:30, 4:30] = 1
    labels[17, 13, 21] = 2
    found = resample_labels(labels, (13, 10, 11))
    assert (found == 2).sum() == 1
    place = np.argwhere(found == 2)[0]
    assert np.abs((place + 0.5) * 40 / np.array([13, 10, 11]) - 0.5 - [17, 13, 21]).max() <= 2.5


@settings(max_examples=40, deadline=None)
@given(old=SHAPES, new=st.tuples(*[st.integers(2, 30)] * 3), seed=st.integers(0, 99), separate_z=st.booleans())
def test_no_label_is_lost_or_invented(old: tuple[int, ...], new: tuple[int, ...], seed: int, separate_z: bool) -> None:
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random(old) < 0.05, generator.integers(0, 4, old), 0).astype(np.uint8)
    found = resample_labels(labels, new, separate_z=separate_z)
    assert set(np.unique(found)) - {0} == set(np.unique(labels)) - {0}
    assert found.dtype == np.uint8 and found.shape == new


def test_counting_labels_in_any_memory_order() -> None:
    labels = np.random.default_rng(0).integers(0, 5, (11, 12, 13)).astype(np.uint8)
    for view in (labels, labels.transpose(2, 0, 1)[::-1], np.asfortranarray(labels)):
        assert np.array_equal(count_labels(view), np.bincount(labels.ravel(), minlength=256))


def test_equal_label_shape_is_exact() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (11, 12, 13)).astype(np.uint8)
    assert np.array_equal(resample_labels(labels, labels.shape), labels)
