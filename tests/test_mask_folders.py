"""Folders of DICOM masks become one label map: names, order, geometry, faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hilum.errors import LabelError
from hilum.labels import SCHEMES
from hilum.scans import read_labels, read_scan
from hilum.scans.mask_folders import key_of, keys_of
from making_dicom import make_series

SHAPE = (4, 12, 10)


def mask(z: slice, y: slice, x: slice) -> np.ndarray:
    array = np.zeros(SHAPE, np.int16)
    array[z, y, x] = 255
    return array


def write_case(root: Path, intercept: int = 0) -> Path:
    parts = {
        "liver": mask(slice(0, 4), slice(2, 9), slice(1, 6)),
        "livertumor01": mask(slice(1, 2), slice(3, 5), slice(2, 4)),
        "livertumor02": mask(slice(2, 3), slice(6, 8), slice(2, 4)),
        "tumor": mask(slice(3, 4), slice(0, 2), slice(7, 9)),  # case 7: not of the liver
        "leftkidney": mask(slice(0, 2), slice(8, 10), slice(7, 9)),
        "portalvein1": mask(slice(0, 4), slice(4, 5), slice(4, 8)),
    }
    for name, array in parts.items():
        make_series(root / name, array + intercept)
    return root


@pytest.mark.parametrize("intercept", [0, -1024])
def test_structures_become_labels_and_lesions_lie_over_organs(tmp_path: Path, intercept: int) -> None:
    labels = read_labels(write_case(tmp_path / "MASKS_DICOM", intercept), SCHEMES["ircadb"])
    found = {int(v): int(n) for v, n in zip(*np.unique(labels.array, return_counts=True), strict=True) if v}
    assert found == {1: 4 * 7 * 5 - 8, 2: 8, 5: 8}
    assert labels.header["left_out"] == ["portalvein1", "tumor"]
    make_series(tmp_path / "PATIENT_DICOM", np.zeros(SHAPE, np.int16) - 1000 + np.arange(10, dtype=np.int16) * 200)
    assert labels.grid.same_as(read_scan(tmp_path / "PATIENT_DICOM").grid)


def test_any_scheme_takes_what_it_knows(tmp_path: Path) -> None:
    root = write_case(tmp_path)
    lits = read_labels(root, SCHEMES["lits"])
    assert set(np.unique(lits.array)) == {0, 1, 2} and int((lits.array == 2).sum()) == 8
    with pytest.raises(LabelError, match="none of its 6 folders"):
        read_labels(root, SCHEMES["hepatic_vessel"].__class__("x", SCHEMES["hepatic_vessel"].labels[:1], ()))


def test_masks_of_another_grid_are_refused(tmp_path: Path) -> None:
    root = write_case(tmp_path)
    make_series(root / "spleen", np.full((4, 6, 10), 255, np.int16))
    with pytest.raises(LabelError, match="lies on another grid"):
        read_labels(root, SCHEMES["ircadb"])


def test_names() -> None:
    assert [key_of(name) for name in ("livertumors", "liverkyst2", "RightKidney", "gallbladder")] == [
        "livertumor", "livercyst", "rightkidney", "gallbladder"
    ]  # fmt: skip
    assert {key for label in SCHEMES["ircadb"].labels for key in keys_of(label)} == {
        "liver", "livertumor", "livercyst", "rightkidney", "leftkidney", "spleen", "gallbladder"
    }  # fmt: skip
