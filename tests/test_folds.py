"""Folds: by patient, level in size and weight, the same on any machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.datasets import CaseRef, make_folds, read_folds, write_folds
from hilum.errors import DatasetError, UsageError


def cases(patients: list[int]) -> list[CaseRef]:
    return [CaseRef(f"c{i:02d}", Path(f"{i}.nii"), None, f"p{p}") for i, p in enumerate(patients)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(2, 6), st.integers(0, 99))
def test_each_case_once_and_patients_stay_together(patients: list[int], count: int, seed: int) -> None:
    refs = cases(patients)
    if len(set(patients)) < count:
        with pytest.raises(DatasetError, match="cannot be split"):
            make_folds(refs, count, seed)
        return
    folds = make_folds(refs, count, seed)
    assert sorted(name for fold in folds for name in fold) == [ref.name for ref in refs]
    home = {name: i for i, fold in enumerate(folds) for name in fold}
    for ref in refs:
        assert {home[other.name] for other in refs if other.patient == ref.patient} == {home[ref.name]}
    sizes = [len({ref.patient for ref in refs if home[ref.name] == i}) for i in range(count)]
    assert max(sizes) - min(sizes) <= 1
    assert make_folds(refs[::-1], count, seed) == folds


def test_weights_are_spread_evenly() -> None:
    refs = cases(list(range(20)))
    weights = {ref.name: float(np.exp(i / 2)) for i, ref in enumerate(refs)}
    folds = make_folds(refs, 5, 3, weights)
    for fold in folds:  # one of the five largest, one of the next five, ...
        assert sorted(int(name[1:]) // 5 for name in fold) == [0, 1, 2, 3]
    assert make_folds(refs, 5, 3, weights) == folds != make_folds(refs, 5, 4, weights)


def test_wrong_use() -> None:
    refs = cases([0, 1, 2])
    with pytest.raises(UsageError):
        make_folds(refs, 1, 0)
    with pytest.raises(UsageError, match="not there"):
        make_folds(refs, 2, 0, {"other": 1.0})


def test_written_and_read(tmp_path: Path) -> None:
    refs = cases([0, 0, 1, 2, 3])
    file = tmp_path / "folds.json"
    folds = make_folds(refs, 2, 0)
    write_folds(file, folds)
    assert read_folds(file) == read_folds(file, refs) == folds
    with pytest.raises(DatasetError, match="lacks"):
        read_folds(file, refs[1:])
    with pytest.raises(DatasetError, match="in two folds"):
        read_folds(file, [CaseRef(r.name, r.image, None, "same") for r in refs])


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        json.dumps({"format": 9, "folds": [["a"], ["b"]]}),
        json.dumps({"format": 1, "folds": [["a"], ["a"]]}),
        json.dumps({"format": 1, "folds": [["a"]]}),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(DatasetError):
        read_folds(tmp_path / "f.json")
