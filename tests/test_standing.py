"""Ranks, how firmly they stand, how many patients it takes, and subgroups."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from hilum.errors import InputError
from hilum.judge.power import patients_needed, smallest_difference
from hilum.judge.standing import official_stability, standings
from hilum.judge.statistics import signed_rank_p
from hilum.judge.subgroups import read_groups

PATIENTS = [f"p{i}" for i in range(12)]


def test_ranks_by_case_can_differ_from_ranks_by_mean() -> None:
    steady = [0.8] * 12
    often = [0.85] * 9 + [0.0] * 3  # better on most patients, worse by far on three
    table = standings({"steady": steady, "often": often}, PATIENTS)
    rows = {row["name"]: row for row in table["methods"]}
    assert [row["name"] for row in table["methods"]] == ["often", "steady"]
    assert rows["often"]["rank_of_ranks"] == 1 and rows["often"]["rank"] == 2
    assert rows["often"]["mean_rank"] == pytest.approx((9 * 1 + 3 * 2) / 12)
    assert rows["often"]["first"] > 0.9 and rows["often"]["rank_low"] == 1
    assert 0 < table["kendall_tau"] <= 1


def test_equal_methods_share_ranks_and_low_can_be_best() -> None:
    same = standings({"a": [0.5] * 12, "b": [0.5] * 12}, PATIENTS)
    assert [row["rank_of_ranks"] for row in same["methods"]] == [1, 1]
    assert all(row["first"] == 1 for row in same["methods"]) and math.isnan(same["kendall_tau"])
    low = standings({"a": [3.0] * 12, "b": [1.0] * 12}, PATIENTS, higher_is_better=False)
    assert low["methods"][0]["name"] == "b" and low["methods"][0]["mean"] == 1.0
    assert low["kendall_tau"] == 1
    assert standings({"a": [math.nan], "b": [1.0]}, ["p"]) == {}


def test_a_clear_order_of_the_official_ranking_stands() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.8, (6, 12))
    firm = official_stability({"low": base, "high": base + 0.1}, PATIENTS)
    assert firm["high"] == {"first": 1.0, "rank_low": 1, "rank_high": 1}
    assert firm["low"]["first"] == 0


def test_patients_needed() -> None:
    # 34 pairs are what every table gives for an effect of 0.5 at 80 % power (t-test); Wilcoxon asks 3 / pi more
    assert patients_needed(0.5, 1.0) == math.ceil(33.367 / (3 / math.pi))
    assert patients_needed(-0.5, 1.0) == patients_needed(0.5, 1.0)
    assert patients_needed(10.0, 0.1) == 6
    assert patients_needed(0.0, 1.0) is None and patients_needed(1e-9, 1.0) is None
    assert patients_needed(0.1, math.nan) is None
    assert math.isnan(smallest_difference(2, 1.0))
    n = patients_needed(0.3, 1.0)
    assert n is not None and smallest_difference(n, 1.0) <= 0.3 < smallest_difference(n - 2, 1.0)


def test_power_is_what_it_says() -> None:
    rng = np.random.default_rng(1)
    n = patients_needed(0.6, 1.0)
    assert n is not None
    shown = [signed_rank_p(rng.normal(0.6, 1.0, n)) < 0.05 for _ in range(1500)]
    assert 0.76 < np.mean(shown) < 0.86


@given(hnp.arrays(np.float64, st.integers(1, 9), elements=st.sampled_from((-2.0, -1.0, -0.5, 0.5, 1.0, 3.0))))
@settings(max_examples=60, deadline=None)
def test_signed_ranks_agree_with_all_signs_counted(moved: np.ndarray) -> None:
    ranks = stats.rankdata(np.abs(moved))
    signs = np.array(np.meshgrid(*[(0, 1)] * len(moved))).reshape(len(moved), -1).T
    sums, seen = signs @ ranks, ranks[moved > 0].sum()
    want = min(1.0, 2 * min((sums <= seen + 1e-9).mean(), (sums >= seen - 1e-9).mean()))
    assert signed_rank_p(moved) == pytest.approx(want, rel=1e-12)


def test_signed_ranks_of_many_are_the_librarys() -> None:
    moved = np.round(np.random.default_rng(2).normal(0.1, 1, 80), 1)
    moved = moved[moved != 0]
    assert signed_rank_p(moved) == pytest.approx(stats.wilcoxon(moved, method="asymptotic").pvalue)


CASES = [f"case_{i}" for i in range(9)]


def test_groups_by_value_and_in_thirds(tmp_path: Path) -> None:
    rows = [f"case_{i},{'arterial' if i < 4 else 'venous'},{i + 0.5}," for i in range(9)]
    (tmp_path / "groups.csv").write_text("\n".join(["case,phase,size_mm,site", *rows, "case_99,late,1,x"]))
    groups = read_groups(tmp_path / "groups.csv", CASES)
    assert [(g.column, g.name, len(g.cases)) for g in groups] == [
        ("phase", "arterial", 4),
        ("phase", "venous", 5),
        ("size_mm", "up to 3.167", 3),
        ("size_mm", "above 3.167 to 5.833", 3),
        ("size_mm", "above 5.833", 3),
    ]
    by_patient = tmp_path / "patients.csv"
    by_patient.write_text("Patient,sex\na,f\nb,m\n")
    owners = {case: "a" if i < 5 else "b" for i, case in enumerate(CASES)}
    assert [(g.name, len(g.cases)) for g in read_groups(by_patient, CASES, owners)] == [("f", 5), ("m", 4)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("case,phase\n", "no rows"),
        ("x,phase\n1,2\n", "columns"),
        ("case,phase\ncase_1,a\ncase_1,b\n", "twice"),
        ("case,phase\nother,a\n", "none of the 9 cases"),
    ],
)
def test_tables_that_say_nothing(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "g.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        read_groups(tmp_path / "g.csv", CASES)
