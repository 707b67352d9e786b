from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import RecipeError
from hilum.inference.postprocess import STEPS, apply, check, groups
from hilum.labels import SCHEMES, scheme_from
from hilum.volume import INSIDE, Volume

KITS, LITS, ABDOMEN = SCHEMES["kits"], SCHEMES["lits"], SCHEMES["abdomen"]
SIDED_WITH_TUMOUR = scheme_from({"values": {"right kidney": 1, "left kidney": 2, "kidney tumour": 3}})


def volume(array: np.ndarray, spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> Volume:
    """Labels in SPL order with the given (D, H, W) spacing."""
    d, h, w = spacing_mm
    affine = np.array([[0, 0, -w, 100], [0, -h, 0, 80], [d, 0, 0, -50], [0, 0, 0, 1]], float)
    labels = Volume(array.astype(np.uint8), affine)
    assert labels.codes == INSIDE
    return labels


def test_groups():
    assert [(g.name, g.values, g.pair) for g in groups(KITS)] == [("kidney", (1, 2, 3), True)]
    assert [(g.name, g.values, g.pair) for g in groups(LITS)] == [("liver", (1, 2), False)]
    assert [(g.name, g.values, g.pair) for g in groups(ABDOMEN)] == [
        ("left kidney", (2,), False),
        ("right kidney", (1,), False),
        ("liver", (3,), False),
        ("spleen", (4,), False),
    ]
    assert [(g.name, g.values, g.pair) for g in groups(SIDED_WITH_TUMOUR)] == [("kidney", (1, 2, 3), True)]


def two_kidneys() -> np.ndarray:
    array = np.zeros((30, 30, 80), np.uint8)
    array[5:20, 5:15, 5:15] = 1  # 1500 voxels
    array[8:20, 5:15, 60:70] = 1  # 1200 voxels, 110 mm to the left
    array[20:24, 5:15, 60:70] = 2  # its tumour, 400 voxels
    return array


def test_keep_largest_keeps_both_kidneys_with_their_lesions_and_drops_islands():
    array = two_kidneys()
    array[1:3, 1:3, 40] = 1  # 4 voxels
    array[26:28, 20:22, 20:22] = 2  # 8 voxels of tumour somewhere
    cleaned, records = apply(volume(array), KITS, [{"step": "keep_largest"}])
    assert np.array_equal(cleaned.array, two_kidneys())
    assert records == [{"step": "keep_largest", "what": "kidney", "components": 2, "ml": pytest.approx(12 * 0.008)}]


def test_keep_largest_counts_a_tumour_with_its_kidney():
    array = np.zeros((20, 20, 80), np.uint8)
    array[2:12, 2:12, 5:15] = 1  # 1000
    array[2:8, 2:8, 60:62] = 1  # 72 of kidney, 7 %, carrying
    array[2:8, 2:8, 62:72] = 2  # 360 of tumour
    array[15:19, 2:8, 30:40] = 1  # 240 that is neither the largest nor the second
    cleaned, _ = apply(volume(array), KITS, [{"step": "keep_largest"}])
    array[15:19] = 0
    assert np.array_equal(cleaned.array, array)


def test_a_second_kidney_must_be_apart_or_large():
    array = np.zeros((40, 20, 20), np.uint8)
    array[1:11, 1:11, 1:11] = 1  # 1000
    array[20:25, 1:6, 1:6] = 1  # 125, 12.5 %, above the first one: an island
    cleaned, records = apply(volume(array), KITS, [{"step": "keep_largest"}])
    assert not cleaned.array[20:25].any() and records[0]["components"] == 1
    array[20:28, 1:8, 1:8] = 1  # 392, 39 %: a pelvic kidney
    cleaned, records = apply(volume(array), KITS, [{"step": "keep_largest"}])
    assert np.array_equal(cleaned.array, array) and records == []


def test_one_liver_only():
    array = np.zeros((10, 10, 60), np.uint8)
    array[1:6, 1:6, 1:6], array[1:6, 1:6, 50:54] = 1, 1
    cleaned, records = apply(volume(array), LITS, [{"step": "keep_largest"}])
    assert cleaned.array.sum() == 125 and records[0]["ml"] == pytest.approx(0.8)


def test_touch_organ():
    array = two_kidneys()
    array[24, 15, 70] = 3  # a cyst that touches the tumour with a corner: stays
    array[28, 28, 40:44] = 2  # a tumour and a cyst that touch only each other: go
    array[28, 28, 44:46] = 3
    cleaned, records = apply(volume(array), KITS, [{"step": "touch_organ"}])
    assert cleaned.array[24, 15, 70] == 3 and not cleaned.array[28].any()
    assert records == [
        {"step": "touch_organ", "what": "kidney lesions", "components": 1, "ml": pytest.approx(6 * 0.008)}
    ]


def test_touch_organ_without_the_organ_removes_all_lesions():
    array = np.zeros((5, 5, 5), np.uint8)
    array[2, 2, 2] = 2
    assert not apply(volume(array), KITS, [{"step": "touch_organ"}])[0].array.any()


def test_drop_small_gives_lesions_back_to_their_organ():
    array = two_kidneys()
    array[10, 10, 10] = 2  # a voxel of tumour inside the kidney: 0.008 mL
    array[28, 28, 40:42] = 3  # a cyst far away: 0.016 mL
    cleaned, records = apply(volume(array), KITS, [{"step": "drop_small", "min_ml": 0.02}])
    assert np.array_equal(cleaned.array, two_kidneys())
    assert [(r["what"], r["components"]) for r in records] == [("tumour", 1), ("cyst", 1)]
    assert [r["organ_ml"] for r in records] == [pytest.approx(0.008), 0]


def test_drop_small_by_label():
    array = two_kidneys()
    array[10, 10, 10], array[12, 10, 10] = 2, 3
    steps = [{"step": "drop_small", "min_ml": {"cyst": 0.02}}]
    cleaned, _ = apply(volume(array), KITS, steps)
    assert cleaned.array[10, 10, 10] == 2 and cleaned.array[12, 10, 10] == 1
    cleaned, _ = apply(volume(array), KITS, [{"step": "drop_small", "min_ml": 0.02, "labels": ["tumour"]}])
    assert cleaned.array[10, 10, 10] == 1 and cleaned.array[12, 10, 10] == 3


def test_drop_small_asks_the_neighbours_which_side_it_is():
    array = np.zeros((10, 10, 30), np.uint8)
    array[2:8, 2:8, 2:8], array[2:8, 2:8, 20:26] = 1, 2
    array[4, 4, 4], array[4, 4, 22] = 3, 3
    cleaned, _ = apply(volume(array), SIDED_WITH_TUMOUR, [{"step": "drop_small", "min_ml": 0.1}])
    assert cleaned.array[4, 4, 4] == 1 and cleaned.array[4, 4, 22] == 2


def test_fill_holes():
    array = two_kidneys()
    array[10:12, 8:10, 8:10] = 0  # a hole
    array[10, 5, 10] = 0  # a dent, open to the outside
    cleaned, records = apply(volume(array), KITS, [{"step": "fill_holes"}])
    assert (cleaned.array[10:12, 8:10, 8:10] == 1).all() and cleaned.array[10, 5, 10] == 0
    assert records == [{"step": "fill_holes", "what": "kidney", "components": 1, "ml": pytest.approx(0.064)}]


def test_fill_holes_leaves_other_organs_alone():
    array = np.zeros((9, 9, 9), np.uint8)
    array[1:8, 1:8, 1:8] = 3
    array[3:6, 3:6, 3:6] = 4
    array[4, 4, 3] = 0
    cleaned, _ = apply(volume(array), ABDOMEN, [{"step": "fill_holes"}])
    assert cleaned.array[4, 4, 4] == 4 and cleaned.array[4, 4, 3] == 3


def test_steps_run_in_order_and_leave_the_input_alone():
    array = two_kidneys()
    array[28, 28, 40] = 2
    before = array.copy()
    labels = volume(array)
    cleaned, records = apply(labels, KITS, [{"step": "keep_largest"}, {"step": "touch_organ"}])
    assert np.array_equal(labels.array, before) and np.array_equal(cleaned.array, two_kidneys())
    assert [record["step"] for record in records] == ["keep_largest"]  # nothing was left for the second


@pytest.mark.parametrize("codes", ["RAS", "LPS", "IPL", "SPL"])
def test_any_axis_order(codes):
    array = two_kidneys()
    array[26:28, 20:22, 20:22] = 2
    turned = volume(array).oriented(codes)
    cleaned, _ = apply(turned, KITS, [{"step": "keep_largest"}])
    assert cleaned.grid.same_as(turned.grid)
    assert np.array_equal(cleaned.oriented().array, two_kidneys())


@pytest.mark.parametrize("name", sorted(STEPS))
@pytest.mark.parametrize("scheme", [KITS, LITS, SIDED_WITH_TUMOUR], ids=lambda s: s.name)
@given(seed=st.integers(0, 50), density=st.floats(0, 0.6))
@settings(max_examples=12, deadline=None)
def test_every_step_is_repeatable_and_accounts_for_what_it_changed(name, scheme, seed, density):
    rng = np.random.default_rng(seed)
    array = np.where(rng.random((6, 7, 8)) < density, rng.integers(1, scheme.class_count, (6, 7, 8)), 0)
    labels = volume(array)
    once, records = apply(labels, scheme, [{"step": name}])
    twice, again = apply(once, scheme, [{"step": name}])
    assert np.array_equal(once.array, twice.array) and again == []
    changed = int((once.array != labels.array).sum())
    assert sum(record["ml"] for record in records) == pytest.approx(changed * labels.voxel_ml)
    assert set(np.unique(once.array)) <= {0, *scheme.values}


def test_nothing_to_do():
    empty = volume(np.zeros((3, 3, 3)))
    assert apply(empty, KITS, [{"step": name} for name in STEPS]) == (empty, [])
    assert apply(empty, KITS, [])[0] is empty


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"step": "keep_bigest"}, "keep_largest"),
        ({}, "keep_largest"),
        ({"step": "drop_small", "minimum": 1}, "min_ml"),
        ({"step": "drop_small", "min_ml": -1}, "at least 0"),
        ({"step": "drop_small", "min_ml": True}, "at least 0"),
        ({"step": "drop_small", "min_ml": {"tumor": 1}}, "tumour"),
        ({"step": "drop_small", "labels": ["tumor"]}, "tumour"),
        ({"step": "fill_holes", "size": 1}, "none"),
        ({"step": "keep_largest", "min_share": "5 %"}, "number"),
    ],
)
def test_wrong_steps_are_refused_with_the_known_ones(step, said):
    with pytest.raises(RecipeError, match=said):
        check([step], KITS)


def test_touch_organ_needs_an_organ_with_lesions():
    with pytest.raises(RecipeError, match="touch_organ"):
        check([{"step": "touch_organ"}], ABDOMEN)


def test_the_largest_component_of_some_labels_together() -> None:
    array = np.zeros((5, 8, 12), np.uint8)
    array[1:4, 1:4, 1:3], array[1:4, 1:4, 3] = 1, 2  # 18 and 9 voxels, one piece
    array[1:4, 1:4, 6:8] = 1  # 18 voxels
    array[1, 6, 10] = 3
    made = volume(array)
    both, records = apply(made, SCHEMES["kits"], [{"step": "largest_component", "labels": ["kidney", "tumour"]}])
    counts = np.bincount(both.array.ravel(), minlength=4)
    assert counts[1:].tolist() == [18, 9, 1] and records[0]["components"] == 1
    every, _ = apply(made, SCHEMES["kits"], [{"step": "largest_component"}])
    assert np.bincount(every.array.ravel(), minlength=4)[1:].tolist() == [18, 9, 0]
    alone, _ = apply(made, SCHEMES["kits"], [{"step": "largest_component", "labels": ["kidney"]}])
    assert np.bincount(alone.array.ravel(), minlength=4)[1:].tolist() == [36, 9, 1]  # equally large ones stay
