"""Choosing cases by an expression: what is understood, what is refused, what is not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.config import read_recipe
from hilum.datasets import CaseRef, Dataset
from hilum.errors import DatasetError, UsageError
from hilum.labels import SCHEMES
from hilum.survey.describing import fact_names
from hilum.survey.selecting import checked_where, open_chosen, select
from hilum.survey.where import parse_where
from making_cases import write_lits

FACTS: dict[str, Any] = {"case": "a", "slices": 100, "hu_min": -1024, "tumour_ml": 5.5, "gender": "female", "age": None}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("slices <= 110 and hu_min >= -1024", True),
        ("slices <= 110 and hu_min >= -1000", False),
        ("not slices > 110 or tumour_ml == 0", True),
        ("50 < slices < 100", False),
        ("case in ('a', 'b') and gender != 'male'", True),
        ("gender not in ['female']", False),
        ("'fem' in gender", True),
        ("tumour_ml / slices * 100 > 5 + 2 * 0.2", True),
        ("(slices // 3) % 2 == 1", True),
        ("-slices < 0", True),
        ("age > 50", None),
        ("not age > 50", None),
        ("age > 50 or slices == 100", True),
        ("age > 50 and slices != 100", False),
        ("age + 1 > 50 and slices == 100", None),
        ("age is None", True),
        ("slices is not None", True),
        ("nowhere > 3", None),
    ],
)
def test_what_is_understood(text: str, answer: bool | None) -> None:
    assert parse_where(text)(FACTS) is answer


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "slices.real > 1",
        "[x for x in case]",
        "lambda: 1",
        "slices ** 9 > 1",
        "slices << 90 > 1",
        "f'{slices}' == 'a'",
        "(y := slices) > 1",
        "slices if slices else 1",
        "facts['slices'] > 1",
        "slices is 100",
        "slices in 3 + 4",
        "slices >",
        "slices > 1; case",
        "",
        "1 + " * 1000 + "1 > 0",
        "(" * 300 + "slices" + ")" * 300 + " > 1",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--where"):
        parse_where(text)(FACTS)


@pytest.mark.parametrize(
    "text", ["slices", "gender > 3", "slices / 0 > 1", "not slices", "gender * 2 == 'a'", "3 in 4"]
)
def test_what_cannot_be_answered_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="--where"):
        parse_where(text)(FACTS)


@given(a=st.integers(-9, 9), b=st.integers(-9, 9), limit=st.integers(-9, 9))
def test_it_means_what_python_means(a: int, b: int, limit: int) -> None:
    text = f"a + b * {limit} <= {limit} or not (a < b) and a in (1, 2, {limit})"
    assert parse_where(text)({"a": a, "b": b}) is (a + b * limit <= limit or (not (a < b) and a in (1, 2, limit)))


def _cases(count: int = 4) -> Dataset:
    cases = [CaseRef(f"c{i}", Path(f"/nowhere/{i}"), None, f"p{i}", {"age": 40 + 10 * i}) for i in range(count)]
    return Dataset("set", tuple(cases), SCHEMES["kits"])


def test_the_sets_own_table_needs_no_file(tmp_path: Path) -> None:
    dataset, chosen = select(_cases(), "age >= 60 and case != 'c3'", tmp_path / "memory")
    assert [case.name for case in dataset.cases] == ["c2"] and chosen.others == ("c0", "c1", "c3")
    assert not (tmp_path / "memory").exists()


def test_unknown_names_bring_the_nearest_and_all() -> None:
    dataset = _cases()
    with pytest.raises(UsageError, match=r"'slcies'.*wanted slices.*known are age, axes, .*tumour_largest_ml"):
        checked_where("slcies > 3", dataset.cases, dataset.scheme)
    with pytest.raises(UsageError, match="hu_min"):
        checked_where("hu_min > 3", dataset.cases, dataset.scheme, labels_only=True)
    assert checked_where("rows > 3 and age > 2", dataset.cases, None)[1] == "grid"
    assert checked_where("tumour_ml > 3 and rows > 2", dataset.cases, dataset.scheme)[1] == "voxels"
    assert set(fact_names(dataset.cases, None)) >= {"age", "label_1_ml"}


def test_cases_that_cannot_be_read_are_left_out_and_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no case fulfils 'slices > 1' .0 of 4 cases; could not be read, 4"):
        select(_cases(), "slices > 1", tmp_path / "memory")
    with pytest.raises(DatasetError, match="explore"):
        select(_cases(), "age > 1000", tmp_path / "memory")


def test_a_recipe_chooses_its_cases(tmp_path: Path) -> None:
    for number in (0, 1, 2):
        write_lits(tmp_path / "set", number)
    overrides = ["data.dataset=lits", f"data.path={tmp_path / 'set'}", "data.where=slices < 20 and case != 'volume-1'"]
    recipe = read_recipe("default", overrides)
    assert [case.name for case in open_chosen(recipe, tmp_path / "run").cases] == ["volume-0", "volume-2"]
    assert (tmp_path / "run" / "where.jsonl").is_file()  # read once, remembered for the run's next start
    with pytest.raises(UsageError, match="tumour_mll"):
        open_chosen(replace(recipe, data=replace(recipe.data, where="tumour_mll > 1")), tmp_path / "run")
