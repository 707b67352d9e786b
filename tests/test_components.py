from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from hilum import components
from hilum.components import (
    box_of,
    centres_along_w,
    component_sizes,
    components_of,
    dilated,
    find_components,
    neighbour_slices,
    nonzero_box,
    wider,
)

ARRAYS = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.sampled_from([0, 0, 0, 1, 2]))


@given(ARRAYS, st.permutations(range(3)))
@settings(max_examples=60, deadline=None)
def test_boxes_hold_everything_and_nothing_more(array, order):
    array = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))  # any order in memory
    for values, box in (((1, 2), nonzero_box(array)), ((1, 2), box_of(array, (1, 2))), ((2,), box_of(array, (2,)))):
        places = np.argwhere(np.isin(array, values))
        if box is None:
            assert not len(places)
        else:
            assert [part.start for part in box] == places.min(0).tolist()
            assert [part.stop - 1 for part in box] == places.max(0).tolist()


@given(ARRAYS, st.sampled_from([6, 18, 26]))
@settings(max_examples=60, deadline=None)
def test_slabs_give_the_same_numbers_as_all_at_once(array, connectivity):
    whole, count = components_of(array, connectivity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "_LARGE", 0)
        patch.setattr(components, "_SLAB", 2)
        found, again = components_of(array, connectivity)
        union, joined = find_components(array, (1, 2))
    assert again == count and np.array_equal(found, whole)
    expected, number = find_components(array, (1, 2))
    assert joined == number and np.array_equal(union, expected)
    assert component_sizes(found, count).tolist() == np.bincount(whole.ravel(), minlength=count + 1).tolist()


def test_a_box_of_nothing_is_none():
    assert box_of(np.zeros((2, 2, 2), np.uint8), (1,)) is None
    assert box_of(np.ones((2, 2, 2), np.uint8), ()) is None
    assert nonzero_box(np.zeros((2, 2, 2), np.uint8)) is None


def test_a_wider_box_stays_inside():
    assert wider((slice(0, 2), slice(1, 3), slice(2, 4)), (4, 4, 4)) == (slice(0, 3), slice(0, 4), slice(1, 4))


@given(ARRAYS)
@settings(max_examples=40, deadline=None)
def test_dilation_is_scipy_s(array):
    assert np.array_equal(dilated(array > 0), ndimage.binary_dilation(array > 0, np.ones((3, 3, 3))))


@given(ARRAYS)
@settings(max_examples=40, deadline=None)
def test_components_are_scipy_s(array):
    components, count = find_components(array, (1, 2))
    theirs, number = ndimage.label(array > 0, np.ones((3, 3, 3)))
    assert count == number and np.array_equal(components > 0, theirs > 0)
    assert len(np.unique(components * 1000 + theirs)) == count + (array == 0).any()


def test_specks_in_a_narrow_box():
    for shape in ((1, 1, 3), (3, 3, 3), (5, 5, 1), (7, 1, 9)):
        array = np.zeros(shape, np.uint8)
        array[::2, ::2, ::2] = 1
        assert find_components(array, (1,))[1] == array.sum()


def test_centres():
    components = np.zeros((2, 2, 5), np.uint32)
    components[0, :, 1:3], components[1, 1, 4] = 1, 2
    assert centres_along_w(components, 2).tolist()[1:] == [1.5, 4.0]


def test_neighbours():
    pairs = neighbour_slices((3, 4, 5))
    assert len(pairs) == 26
    array = np.arange(60).reshape(3, 4, 5)
    steps = {int(np.unique(array[there] - array[here])[0]) for there, here in pairs}
    assert len(steps) == 26 and max(steps) == pytest.approx(26) and min(steps) == -26
