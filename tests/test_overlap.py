"""Confusion counts and what is made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hilum.judge.overlap import (
    OVERLAP,
    UNDEFINED,
    WHOLE_ARRAY,
    Counts,
    dice,
    iou,
    joint_counts,
    mask_counts,
    overlap_metrics,
    ratio,
    region_counts,
)

LABELS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 4))
PAIRS = LABELS.flatmap(
    lambda first: st.tuples(st.just(first), hnp.arrays(np.uint8, first.shape, elements=st.integers(0, 4)))
)


def test_worked_numbers() -> None:
    c = Counts(tp=6, fp=2, fn=3, tn=89)
    values = overlap_metrics(c)
    assert values["dice"] == 12 / 17
    assert values["iou"] == 6 / 11
    assert values["precision"] == 6 / 8
    assert values["sensitivity"] == 6 / 9
    assert values["specificity"] == 89 / 91
    assert values["accuracy"] == 95 / 100
    assert values["balanced_accuracy"] == pytest.approx((6 / 9 + 89 / 91) / 2, abs=1e-15)
    assert values["mcc"] == pytest.approx((6 * 89 - 2 * 3) / math.sqrt(8 * 9 * 91 * 92), abs=1e-15)
    assert (c.truth, c.prediction, c.field) == (9, 8, WHOLE_ARRAY)


def test_nothing_by_nothing_is_undefined_and_has_a_reason() -> None:
    empty = overlap_metrics(Counts(0, 0, 0, 100))
    assert all(math.isnan(empty[name]) for name in ("dice", "iou", "precision", "sensitivity", "mcc"))
    assert empty["specificity"] == empty["accuracy"] == 1.0
    assert set(UNDEFINED) == set(OVERLAP)
    one_sided = overlap_metrics(Counts(0, 0, 7, 93))
    assert one_sided["dice"] == 0.0
    assert math.isnan(one_sided["precision"])


def test_counts_of_whole_scans_do_not_overflow() -> None:
    large = Counts(10**9, 10**9, 10**9, 10**9)
    assert overlap_metrics(large)["mcc"] == 0.0
    assert overlap_metrics(large)["dice"] == 0.5


def test_many_cases_at_once() -> None:
    values = dice(Counts(np.array([1.0, 0.0]), np.array([0.0, 0.0]), np.array([1.0, 0.0]), np.array([5.0, 5.0])))
    assert values[0] == 2 / 3
    assert math.isnan(values[1])
    assert math.isnan(ratio(0, 0))


def test_cropped_background_is_counted() -> None:
    full = np.zeros((4, 5, 6), np.uint8)
    full[1:3, 1:3, 1:3] = 2
    crop = full[1:3, 1:3, 1:3]
    assert np.array_equal(joint_counts(full, full), joint_counts(crop, crop, outside=full.size - crop.size))


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_counts_agree_with_brute_force(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = pair
    joint = joint_counts(truth, prediction)
    assert joint.sum() == truth.size
    for labels in ((1,), (1, 2), (2, 3, 4), range(1, 256)):
        a, b = np.isin(truth, list(labels)), np.isin(prediction, list(labels))
        c = region_counts(joint, labels)
        want = ((a & b).sum(), (~a & b).sum(), (a & ~b).sum(), (~a & ~b).sum())
        assert (c.tp, c.fp, c.fn, c.tn) == want
        assert mask_counts(a, b) == c


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_symmetry_identity_and_range(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = pair
    there = region_counts(joint_counts(truth, prediction), (1, 2))
    back = region_counts(joint_counts(prediction, truth), (1, 2))
    for metric in (dice, iou):
        assert metric(there) == metric(back) or math.isnan(metric(there))
        assert math.isnan(metric(there)) or 0 <= metric(there) <= 1
    same = region_counts(joint_counts(truth, truth), (1, 2))
    assert math.isnan(dice(same)) if not same.tp else dice(same) == 1.0
    if not math.isnan(dice(there)):
        assert dice(there) == pytest.approx(2 * iou(there) / (1 + iou(there)), abs=1e-14)


@given(PAIRS, st.permutations(range(3)), st.tuples(*(st.booleans(),) * 3))
@settings(max_examples=30, deadline=None)
def test_axis_order_does_not_matter(
    pair: tuple[np.ndarray, np.ndarray], axes: list[int], flips: tuple[bool, ...]
) -> None:
    turned = [array.transpose(axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)] for array in pair]
    assert np.array_equal(joint_counts(*pair), joint_counts(*turned))
