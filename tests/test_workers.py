"""Work on many cases at once: order kept, faults gathered, disasters at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hilum.datasets import CaseRef
from hilum.errors import DatasetError, GeometryError, OutputError, ScanError
from hilum.prepare.workers import over_cases, worker_count
from hilum.progress import SILENT

CASES = [CaseRef(f"c{i}", Path(f"{i}.nii"), Path(f"{i}-labels.nii"), f"p{i}") for i in range(12)]


def test_results_keep_the_order_of_the_cases() -> None:
    gate = threading.Barrier(3)

    def work(case: CaseRef) -> str:
        gate.wait(timeout=10)  # three at once, whoever ends first
        return case.name.upper()

    assert over_cases(work, CASES, 3, SILENT, "Test") == [case.name.upper() for case in CASES]


def test_every_bad_case_is_named_and_many_are_cut_short() -> None:
    def work(case: CaseRef) -> None:
        if case.name != "c5":
            raise (ScanError if case.name < "c5" else GeometryError)("is bad", where=case.image)

    with pytest.raises(DatasetError) as caught:
        over_cases(work, CASES, 4, SILENT, "Test")
    text = str(caught.value)
    assert "11 of 12 cases" in text and "[c0] 0.nii: is bad" in text and "and 3 more: c9, c10, c11" in text


@pytest.mark.parametrize("error", [OutputError("the disk is full"), MemoryError()])
def test_what_is_no_fault_of_a_case_stops_everything(error: Exception) -> None:
    seen = []

    def work(case: CaseRef) -> None:
        seen.append(case.name)
        if case.name == "c1":
            raise error

    with pytest.raises(type(error)):
        over_cases(work, CASES, 1, SILENT, "Test")
    assert seen == ["c0", "c1"]


def test_worker_count() -> None:
    assert worker_count(3, 10) == 3 and worker_count(16, 2) == 2
    assert 1 <= worker_count(0, 100) <= 8 and worker_count(0, 1) == 1
