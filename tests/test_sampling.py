"""Sampling: repeatable places, the wanted share of foreground, boxes that reach over the edge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.components import components_of
from hilum.errors import DatasetError, RecipeError
from hilum.patches.sampling import Place, Sampler, centred, cut, is_foreground


@dataclass
class FakeCase:
    image_DHW: np.ndarray
    labels_DHW: np.ndarray
    locations: dict[int, np.ndarray] = field(init=False)
    lesions: dict[int, tuple[np.ndarray, ...]] = field(init=False)
    counts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        present = np.unique(self.labels_DHW)
        self.locations = {int(k): np.argwhere(self.labels_DHW == k).astype(np.int32) for k in present if k}
        self.counts = tuple(np.bincount(self.labels_DHW.ravel(), minlength=4))
        numbered, count = components_of(self.labels_DHW == 3)
        lesions = tuple(np.argwhere(numbered == n + 1) for n in range(count))
        self.lesions = {3: lesions} if lesions else {}


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


class LesionStore(FakeStore):
    """Case "big" has an organ (1), a lesion (3) of 216 voxels and one of 1; "small" an organ and a lesion of 8."""

    def __init__(self) -> None:
        self.cases = {}
        for name in ("big", "small", "none"):
            labels = np.zeros((20, 24, 28), np.uint8)
            labels[2:18, 2:22, 2:26] = 1
            if name == "big":
                labels[3:9, 3:9, 3:9], labels[15, 20, 24] = 3, 3
            if name == "small":
                labels[9:11, 9:11, 9:11] = 3
            self.cases[name] = FakeCase(np.zeros(labels.shape, np.int16), labels)


def centres_in_lesions(by: str, cases: str, steps: int = 600) -> Counter[str]:
    """How often a patch of one voxel is centred on each lesion."""
    store = LesionStore()
    sampler = Sampler(store, ("big", "small", "none"), (1, 1, 1), 1.0, seed=2, by=by, cases=cases)  # type: ignore[arg-type]
    found: Counter[str] = Counter()
    for step in range(steps):
        place = sampler.place(1, step, 0)
        assert store.case(place.name).labels_DHW[place.corner] == place.class_index
        if place.class_index == 3:
            in_big = "large" if place.corner[0] < 12 else "tiny"
            found[in_big if place.name == "big" else "small"] += 1
    return found


def test_by_lesion_each_lesion_of_a_case_comes_equally_often_whatever_its_size() -> None:
    by_class, by_lesion = centres_in_lesions("class", "uniform"), centres_in_lesions("lesion", "uniform")
    assert by_class["large"] > 0.9 * (by_class["large"] + by_class["tiny"])  # 216 voxels against 1
    assert by_lesion["large"] / (by_lesion["large"] + by_lesion["tiny"]) == pytest.approx(0.5, abs=0.12)


def test_by_lesion_and_presence_each_lesion_of_the_set_comes_equally_often() -> None:
    found = centres_in_lesions("lesion", "presence")
    assert sum(found.values()) / 600 == pytest.approx(0.5, abs=0.06)  # two classes, drawn before the case
    for name in ("large", "tiny", "small"):
        assert found[name] / sum(found.values()) == pytest.approx(1 / 3, abs=0.08), name


def test_presence_draws_what_is_rare_as_often_as_what_is_common() -> None:
    uniform, presence = centres_in_lesions("class", "uniform"), centres_in_lesions("class", "presence")
    assert sum(uniform.values()) / 600 == pytest.approx(1 / 3, abs=0.06)  # a third of the cases has none
    assert sum(presence.values()) / 600 == pytest.approx(1 / 2, abs=0.06)


def test_by_voxel_classes_come_as_often_as_their_voxels() -> None:
    store = LesionStore()
    for cases in ("uniform", "presence"):
        found = sum(centres_in_lesions("voxel", cases).values()) / 600
        shares = [store.case(n).counts[3] / sum(store.case(n).counts[1:]) for n in ("big", "small", "none")]
        assert found == pytest.approx(sum(shares) / 3, abs=0.03)


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
