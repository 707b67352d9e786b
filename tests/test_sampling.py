"""Sampling: repeatable places, the wanted share of foreground, boxes that reach over the edge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import DatasetError, RecipeError
from hilum.patches.sampling import Place, Sampler, centred, cut, is_foreground


@dataclass
class FakeCase:
    image_DHW: np.ndarray
    labels_DHW: np.ndarray
    locations: dict[int, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        present = np.unique(self.labels_DHW)
        self.locations = {int(k): np.argwhere(self.labels_DHW == k).astype(np.int32) for k in present if k}


class FakeStore:
    """Three cases of 20x24x28: one with classes 1 and 2, one with class 1, one without any."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.cases: dict[str, FakeCase] = {}
        for name, classes in (("both", (1, 2)), ("organ", (1,)), ("empty", ())):
            labels = np.zeros((20, 24, 28), np.uint8)
            for k in classes:
                labels[5 * k : 5 * k + 3, 8:14, 10:20] = k
            self.cases[name] = FakeCase(rng.integers(-200, 300, labels.shape).astype(np.int16), labels)

    def case(self, name: str) -> FakeCase:
        return self.cases[name]


STORE = FakeStore()
PATCH = (8, 8, 8)


def test_a_draw_depends_on_seed_step_and_item_alone() -> None:
    first = Sampler(STORE, ("both", "organ"), PATCH, 0.5, seed=3)
    second = Sampler(STORE, ("both", "organ"), PATCH, 0.5, seed=3)
    later = [second.draw(4, step) for step in (9, 2, 5)]
    assert later == [first.draw(4, step) for step in (9, 2, 5)]
    assert len({first.place(4, step, item) for step in range(5) for item in range(4)}) > 15
    assert first.draw(4, 1) != Sampler(STORE, ("both", "organ"), PATCH, 0.5, seed=4).draw(4, 1)


def test_places_stay_inside_a_case_that_can_hold_them() -> None:
    sampler = Sampler(STORE, ("both",), PATCH, 0.5, seed=0)
    corners = np.array([place.corner for step in range(200) for place in sampler.draw(2, step).places])
    assert corners.min() == 0
    np.testing.assert_array_equal(corners.max(axis=0) + 8 <= (20, 24, 28), True)
    # uniform corners reach both ends of every axis
    free = np.array([p.corner for s in range(200) for p in sampler.draw(2, s).places if p.class_index == 0])
    np.testing.assert_array_equal(free.min(axis=0), 0)
    np.testing.assert_array_equal(free.max(axis=0), (12, 16, 20))


def test_foreground_patches_hold_their_class() -> None:
    sampler = Sampler(STORE, ("both",), PATCH, 1.0, seed=0)
    for step in range(50):
        for place in sampler.draw(2, step).places:
            assert place.class_index in (1, 2)
            labels = cut(STORE.case(place.name).labels_DHW, place.corner, PATCH, 0)
            assert (labels == place.class_index).any()


@pytest.mark.parametrize(
    ("share", "batch", "expected"), [(0.33, 2, 0.5), (0.5, 4, 0.5), (0.33, 1, 0.33), (0.0, 2, 0.0)]
)
def test_share_of_foreground(share: float, batch: int, expected: float) -> None:
    sampler = Sampler(STORE, ("both",), PATCH, share, seed=1)
    draws = [sampler.draw(batch, step) for step in range(1200 // batch)]
    found = np.mean([place.class_index > 0 for draw in draws for place in draw.places])
    assert found == pytest.approx(expected, abs=0.05)
    if share and batch > 1:
        assert all(draw.places[-1].class_index for draw in draws)


@given(share=st.floats(0.01, 1), batch=st.integers(2, 16), chance=st.floats(0, 0.999999))
def test_every_batch_of_two_or_more_has_foreground(share: float, batch: int, chance: float) -> None:
    assert any(is_foreground(share, batch, item, chance) for item in range(batch))


def test_weights_of_classes() -> None:
    sampler = Sampler(STORE, ("both",), PATCH, 1.0, seed=1, weights={1: 1.0, 2: 3.0})
    found = Counter(sampler.place(1, step, 0).class_index for step in range(600))
    assert found[2] / 600 == pytest.approx(0.75, abs=0.06)


def test_cases_come_equally_often_and_one_without_foreground_is_drawn_anywhere() -> None:
    sampler = Sampler(STORE, ("both", "organ", "empty"), PATCH, 1.0, seed=1)
    places = [sampler.place(1, step, 0) for step in range(600)]
    found = Counter(place.name for place in places)
    assert all(found[name] == pytest.approx(200, abs=45) for name in ("both", "organ", "empty"))
    assert {p.class_index for p in places if p.name == "empty"} == {0}
    assert {p.class_index for p in places if p.name == "organ"} == {1}


def test_patch_larger_than_the_case_is_centred_on_it() -> None:
    sampler = Sampler(STORE, ("both",), (25, 8, 40), 0.0, seed=1)
    place = sampler.place(1, 0, 0)
    assert place.corner[0] == -3 and place.corner[2] == -6 and 0 <= place.corner[1] <= 16
    assert centred(np.array([5, 20, 27]), (20, 24, 28), (25, 8, 40)) == (-3, 16, -6)


@given(
    corner=st.tuples(*[st.integers(-12, 12)] * 3),
    shape=st.tuples(*[st.integers(1, 12)] * 3),
)
def test_cut_equals_padding_and_slicing(corner: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    array = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    padded = np.pad(array, 24, constant_values=-1024)
    wanted = padded[tuple(slice(c + 24, c + 24 + s) for c, s in zip(corner, shape, strict=True))]
    box = cut(array, corner, shape, -1024)
    np.testing.assert_array_equal(box, wanted)
    assert box.dtype == np.int16 and box.base is None and box.flags.c_contiguous


def test_faults_of_users() -> None:
    with pytest.raises(DatasetError, match="no cases"):
        Sampler(STORE, (), PATCH, 0.3, seed=0)
    with pytest.raises(RecipeError, match=r"patches.foreground = 1.5"):
        Sampler(STORE, ("both",), PATCH, 1.5, seed=0)


def test_negative_seeds_are_fine() -> None:
    assert isinstance(Sampler(STORE, ("both",), PATCH, 0.3, seed=-1).place(2, 0, 0), Place)
