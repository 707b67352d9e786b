"""Intervals, tests and effect sizes on numbers that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hilum.judge.statistics import (
    bland_altman,
    bootstrap_means,
    holm,
    intervals,
    non_inferior,
    paired_difference,
    patient_weights,
)

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=12)


def names(count: int) -> list[str]:
    return [f"case_{i}" for i in range(count)]


def test_means_leave_out_what_is_undefined_column_by_column() -> None:
    values = np.array([[1.0, np.nan], [0.0, np.inf], [0.5, 0.25]])
    first, second = bootstrap_means(values, names(3))
    assert (first.value, first.n) == (0.5, 3)
    assert (second.value, second.n) == (0.25, 1)
    assert math.isnan(second.low)  # one patient has no interval
    nothing = bootstrap_means(np.full((2, 1), np.nan), names(2))[0]
    assert math.isnan(nothing.value)
    assert nothing.n == 0


def test_draws_are_by_patient_and_repeatable() -> None:
    weights = patient_weights(["a", "a", "b"], samples=50)
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert (weights[:, 1] + weights[:, 2] == 2).all()
    assert np.array_equal(weights, patient_weights(["a", "a", "b"], samples=50))
    assert not np.array_equal(weights, patient_weights(["a", "a", "b"], samples=50, seed=1))


def test_interval_covers_as_it_should() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(60):
        estimate = bootstrap_means(rng.normal(0.8, 0.1, (40, 1)), names(40))[0]
        hits += estimate.low <= 0.8 <= estimate.high
    assert hits >= 51  # 95 % of 60 is 57; the percentile interval is a little short


def test_interval_is_near_students_for_many_cases() -> None:
    values = np.random.default_rng(0).normal(0, 1, 400)
    estimate = bootstrap_means(values[:, None], names(400))[0]
    half = 1.96 * values.std(ddof=1) / 20
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.1)


def test_intervals_skip_draws_without_a_value() -> None:
    low, high = intervals(np.array([[0.0, np.nan], [1.0, np.nan], [np.nan, np.nan]]))
    assert (low[0], high[0]) == pytest.approx((0.025, 0.975))
    assert np.isnan([low[1], high[1]]).all()


@given(VALUES)
@settings(max_examples=25, deadline=None)
def test_interval_holds_the_mean_and_stays_in_range(values: list[float]) -> None:
    estimate = bootstrap_means(np.array(values)[:, None], names(len(values)))[0]
    assert min(values) - 1e-12 <= estimate.low <= estimate.high <= max(values) + 1e-12
    assert estimate.value == pytest.approx(np.mean(values))


def test_paired_difference_worked() -> None:
    first, second = [0.5, 0.6, 0.7, 0.8, 0.9], [0.6, 0.8, 1.0, 0.75, 0.9]
    found = paired_difference(first, second, names(5))
    assert found.mean == pytest.approx(0.11)
    # changes .1 .2 .3 -.05 0: ranks of the four that moved 2 3 4 1
    assert found.rank_biserial == pytest.approx((2 + 3 + 4 - 1) / 10)
    change = np.array(second) - first
    assert found.cohen_dz == pytest.approx(change.mean() / change.std(ddof=1))
    assert found.p == pytest.approx(stats.wilcoxon([0.1, 0.2, 0.3, -0.05]).pvalue)
    assert found.low < found.mean < found.high
    back = paired_difference(second, first, names(5))
    assert (back.mean, back.rank_biserial, back.p) == pytest.approx((-found.mean, -found.rank_biserial, found.p))


def test_paired_difference_of_equals_and_of_nothing() -> None:
    same = paired_difference([0.5, 0.6], [0.5, 0.6], names(2))
    assert (same.mean, same.p, same.rank_biserial) == (0, 1, 0)
    assert math.isnan(same.cohen_dz)
    nothing = paired_difference([math.nan], [0.5], names(1))
    assert nothing.n == 0
    assert math.isnan(nothing.p)


def test_constant_change_has_no_effect_size_in_its_own_spread() -> None:
    first = [0.1, 0.2, 0.3] * 20
    found = paired_difference(first, [x + 0.1 for x in first], names(60))
    assert math.isnan(found.cohen_dz)
    assert found.rank_biserial == 1
    assert paired_difference([0.1], [0.2], ["a"]).p == 1


def test_scans_of_one_patient_are_one_pair() -> None:
    found = paired_difference([0.0, 0.0, 0.0], [1.0, 0.5, 0.3], ["a", "a", "b"])
    assert found.n == 2
    assert found.mean == pytest.approx((0.75 + 0.3) / 2)


def test_holm_worked() -> None:
    adjusted = holm([0.01, 0.04, math.nan, 0.03])
    assert adjusted[[0, 1, 3]].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(adjusted[2])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0


def test_non_inferiority_looks_at_the_worse_end() -> None:
    found = paired_difference([0.80, 0.81, 0.79, 0.80], [0.80, 0.80, 0.80, 0.79], names(4))
    assert non_inferior(found, 0.05)
    assert not non_inferior(found, 0.001)
    assert non_inferior(found, 0.05, higher_is_better=False)


def test_bland_altman_worked() -> None:
    found = bland_altman([10.0, 20.0, 30.0, 40.0], [11.0, 19.0, 32.0, 42.0], names(4))
    assert found.bias == 1.0
    assert found.sd == pytest.approx(math.sqrt(2))
    assert (found.low, found.high) == pytest.approx((1 - 1.959964 * math.sqrt(2), 1 + 1.959964 * math.sqrt(2)))
    assert found.bias_high - found.bias == pytest.approx(3.182446 * math.sqrt(2) / 2, rel=1e-6)
    few = bland_altman([1.0, 2.0], [1.5, 2.5], names(2))
    assert few.bias == 0.5
    assert math.isnan(few.sd)
