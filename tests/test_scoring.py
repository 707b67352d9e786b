"""The box around two label arrays, whatever their order in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.judge.pair import union_box


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.sampled_from((1, 3, 8, 16))),
    st.permutations(range(3)),
    st.permutations(range(3)),
    st.integers(0, 2**32),
    st.sampled_from((0.0, 0.01, 0.2)),
)
@settings(max_examples=80, deadline=None)
def test_union_box_agrees_with_the_definition(
    shape: tuple[int, int, int], first: list[int], second: list[int], seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    sides = []
    for order in (first, second):
        array = ((rng.random(shape) < share) * rng.integers(1, 256, shape)).astype(np.uint8)
        sides.append(np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order)))
    start, stop = union_box(*sides)
    places = np.argwhere(sides[0] | sides[1])
    want = (places.min(axis=0), places.max(axis=0) + 1) if len(places) else ([0, 0, 0], [1, 1, 1])
    assert start == tuple(want[0])
    assert stop == tuple(want[1])


@pytest.mark.parametrize("step", [1, 2])
def test_union_box_takes_masks_and_strided_views(step: int) -> None:
    mask = np.zeros((4, 6, 32), bool)
    mask[1, 2, 16] = True
    view = mask[:, :, ::step]
    assert union_box(view, np.zeros_like(view)) == ((1, 2, 16 // step), (2, 3, 16 // step + 1))
