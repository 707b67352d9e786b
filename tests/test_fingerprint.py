"""The fingerprint: worked numbers on cases that are written and read back; faults named."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from hilum.datasets import CaseRef
from hilum.errors import DatasetError, InputError
from hilum.labels import scheme_from
from hilum.prepare.fingerprint import SAMPLES, Fingerprint, fingerprint, generator_for
from hilum.progress import Progress
from hilum.scans import write_labels, write_scan
from hilum.volume import Volume

KITS = scheme_from("kits")


def write_case(
    folder: Path, name: str, *, shift_mm: float = 0, codes: str = "RAS", empty: bool = False, side: int = 24
) -> CaseRef:
    """Air with a kidney of 100 HU (20 x 10 x 10 voxels of 1 x 2 x 3 mm) and in it a tumour of 40 HU (4 x 5 x 5)."""
    array = np.full((side, 14, 12), -1000, np.int16)
    array[-1] = 30
    labels = np.zeros(array.shape, np.uint8)
    if not empty:
        labels[2:22, 2:12, 1:11], labels[4:8, 3:8, 2:7] = 1, 2
        array[labels == 1], array[labels == 2] = 100, 40
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    case = CaseRef(name, folder / f"{name}.nii.gz", folder / f"{name}-labels.nii.gz", name)
    write_scan(case.image, Volume(array, affine).oriented(codes))
    moved = affine.copy()
    moved[0, 3] += shift_mm
    assert case.labels is not None
    write_labels(case.labels, Volume(labels, moved).oriented(codes))
    return case


def test_worked_numbers(tmp_path: Path) -> None:
    found = fingerprint([write_case(tmp_path, "a"), write_case(tmp_path, "b", codes="LPI")], KITS, workers=2)
    case = found.cases[0]
    assert case.shape == (12, 14, 24) and case.spacing_mm == pytest.approx((3.0, 2.0, 1.0))
    assert case.voxels == {1: 1900, 2: 100, 3: 0}
    assert case.volumes_ml == pytest.approx({1: 11.4, 2: 0.6, 3: 0.0})
    assert case.hu is not None and case.hu.mean == pytest.approx((1900 * 100 + 100 * 40) / 2000)
    assert case.hu.std == pytest.approx(60 * np.sqrt(0.05 * 0.95), rel=1e-6)
    assert (found.hu.low, found.hu.median, found.hu.high, found.hu.samples) == (40, 100, 100, 4000)
    assert found.cases[1].shape == case.shape and found.cases[1].hu == case.hu
    assert found.absent == (3,)


def test_large_foreground_is_sampled_alike_every_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(-100, 300, (40, 40, 40)).astype(np.int16)
    paths = tmp_path / "x.nii.gz", tmp_path / "y.nii.gz"
    write_scan(paths[0], Volume(array, np.eye(4)))
    write_labels(paths[1], Volume(np.ones(array.shape, np.uint8), np.eye(4)))
    case = CaseRef("x", *paths, "x")
    first, second = fingerprint([case], KITS), fingerprint([case], KITS, workers=1)
    assert first == second and first.hu.samples == SAMPLES
    assert first.hu.mean == pytest.approx(array.mean(), abs=4)


def test_generator_depends_on_the_name_alone() -> None:
    # the first draw for "case_00000", fixed so that stores stay the same on every machine and in every version
    assert generator_for("case_00000").integers(1 << 30) == generator_for("case_00000").integers(1 << 30)
    assert generator_for("case_00000").integers(1 << 30) != generator_for("case_00001").integers(1 << 30)


def test_json_round_trip(tmp_path: Path) -> None:
    found = fingerprint([write_case(tmp_path, "a"), write_case(tmp_path, "b", empty=True)], KITS)
    table = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert Fingerprint.from_json(table) == found
    with pytest.raises(InputError, match="format 9"):
        Fingerprint.from_json({**table, "format": 9})
    with pytest.raises(InputError, match="hu"):
        Fingerprint.from_json({key: value for key, value in table.items() if key != "hu"})


def test_empty_cases_and_absent_labels_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = fingerprint([write_case(tmp_path, "full"), write_case(tmp_path, "healthy", empty=True)], KITS)
    assert found.cases[1].hu is None and found.cases[1].voxels == {1: 0, 2: 0, 3: 0}
    assert "healthy: the label map is empty" in caplog.text and "3 (cyst)" in caplog.text


def test_all_bad_cases_are_named_at_once(tmp_path: Path) -> None:
    cases = [write_case(tmp_path, "good"), write_case(tmp_path, "moved", shift_mm=30), write_case(tmp_path, "strange")]
    strange = cases[2].labels
    assert strange is not None
    write_labels(strange, Volume(np.full((24, 14, 12), 7, np.uint8), np.diag([1.0, 2.0, 3.0, 1.0])))
    cases.append(CaseRef("missing", tmp_path / "nowhere.nii.gz", tmp_path / "nowhere-labels.nii.gz", "missing"))
    with pytest.raises(DatasetError, match="3 of 4 cases") as caught:
        fingerprint(cases, KITS)
    for words in ("[moved]", "30.0 mm away", "[strange]", "7 (4032 voxels)", "[missing]", "no such file"):
        assert words in str(caught.value)


def test_unusable_lists_are_refused(tmp_path: Path) -> None:
    case = write_case(tmp_path, "a")
    with pytest.raises(DatasetError, match="no cases"):
        fingerprint([], KITS)
    with pytest.raises(DatasetError, match="named twice"):
        fingerprint([case, case], KITS)
    with pytest.raises(DatasetError, match="no label map: bare"):
        fingerprint([case, CaseRef("bare", case.image, None, "bare")], KITS)
    with pytest.raises(DatasetError, match="none of the 1 label maps"):
        fingerprint([write_case(tmp_path, "air", empty=True)], KITS)


def test_progress_counts_cases(tmp_path: Path) -> None:
    bars: list[Progress] = []

    class Kept(Progress):
        def stage(self, title: str, total: int = 0) -> Progress:
            bars.append(Progress(title, total))
            return bars[-1]

    fingerprint([write_case(tmp_path, "a"), write_case(tmp_path, "b")], KITS, progress=Kept())
    assert [(bar.title, bar.done, bar.total) for bar in bars] == [("Fingerprint", 2, 2)]
