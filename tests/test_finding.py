"""Which scans patterns mean, and their names."""

from pathlib import Path

import numpy as np
import pytest

from hilum.errors import ScanError, UsageError
from hilum.scans import case_name, find_scans
from hilum.scans.finding import natural_key
from making_dicom import body, make_series


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("scans/case_00001.nii.gz", "case_00001"),
        ("a.b.nii", "a.b"),
        ("x/case_00000/imaging.nii.gz", "case_00000"),
        ("x/case_00000/segmentation.nii.gz", "case_00000"),
        ("out/case_7/labels.nii.gz", "case_7"),
        ("s0001/ct.nii.gz", "ct"),
        ("volume.MHA", "volume"),
        ("patient/series 2/", "series 2"),
        ("study.zip", "study"),
        ("patients/labels", "labels"),
    ],
)
def test_case_names(path, name):
    assert case_name(path) == name


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(*patterns):
    return [(s.name, s.path.name) for s in find_scans([str(p) for p in patterns])]


def test_files_folders_and_globs(tmp_path):
    touch(tmp_path, "c_10.nii.gz", "c_2.nii.gz", "c_1.mha", "d.zip", "notes.txt", ".hidden.nii.gz", "readme")
    everything = [("c_1", "c_1.mha"), ("c_2", "c_2.nii.gz"), ("c_10", "c_10.nii.gz"), ("d", "d.zip")]
    assert found(tmp_path) == everything
    assert found(tmp_path / "*") == everything
    assert found(tmp_path / "c_*.nii.gz") == everything[1:3]
    assert (
        found(tmp_path / "notes.txt") == [("notes", "notes.txt")] or found(tmp_path / "notes.txt")[0][1] == "notes.txt"
    )
    assert found(tmp_path / "c_2.nii.gz", tmp_path / "c_*.nii.gz") == [everything[1], everything[2]]


def test_case_folders_give_the_scan_not_the_labels(tmp_path):
    for case in ("case_2", "case_10"):
        touch(tmp_path, f"{case}/imaging.nii.gz", f"{case}/segmentation.nii.gz")
    assert found(tmp_path) == [("case_2", "imaging.nii.gz"), ("case_10", "imaging.nii.gz")]
    assert found(tmp_path / "case_*" / "segmentation.nii.gz") == [
        ("case_2", "segmentation.nii.gz"),
        ("case_10", "segmentation.nii.gz"),
    ]
    touch(tmp_path, "only/labels.nii.gz")
    assert found(tmp_path / "only") == [("only", "labels.nii.gz")]


def test_equal_names_are_told_apart(tmp_path):
    touch(tmp_path, "p1/ct.nii.gz", "p2/ct.nii.gz", "x/p1/ct.nii.gz", "p3/other.nii.gz")
    names = [n for n, _ in found(*(tmp_path / p for p in ("p1/ct.nii.gz", "p2/ct.nii.gz", "x/p1/ct.nii.gz", "p3")))]
    assert names == ["p1_ct", "p2_ct", "p1_ct_2", "other"]


def test_dicom_folders_one_scan_a_series(tmp_path):
    hu = body(3, 16, 16)
    make_series(tmp_path / "p1" / "ct", hu, name="IM{}")
    make_series(tmp_path / "p1" / "seg", hu, Modality="SEG")
    make_series(tmp_path / "p2" / "study" / "ct2", hu)
    touch(tmp_path, "p1/readme.txt")
    assert found(tmp_path) == [("ct", "ct"), ("ct2", "ct2")]
    assert found(tmp_path / "p1" / "seg") == [("seg", "seg")]  # reading it says what it is
    assert found(tmp_path / "p1" / "ct" / "IM*")[0][1] == "IM0"


def test_nothing_there(tmp_path):
    for pattern in (tmp_path / "nothing", tmp_path / "*.nii.gz", tmp_path / "a.nii.gz"):
        with pytest.raises(UsageError, match="matches no scan"):
            find_scans([str(pattern)])
    touch(tmp_path, "sub/a.txt")
    with pytest.raises(ScanError, match="no scan in this folder"):
        find_scans([str(tmp_path)])


def test_natural_order():
    names = ["image_10", "image_9", "image_1b", "image_1", "a"]
    assert sorted(names, key=natural_key) == ["a", "image_1", "image_1b", "image_9", "image_10"]
    assert sorted(np.random.default_rng(0).permutation(200).astype(str), key=natural_key)[:3] == ["0", "1", "2"]


def test_results_among_the_scans_are_no_scans(tmp_path):
    make_series(tmp_path / "p1", body(3))
    touch(tmp_path, "out/p1/case.json", "out/p1/labels.nii.gz", "out/p1/probabilities_kidney.nii.gz")
    assert found(tmp_path) == [("p1", "p1")]
    assert found(tmp_path / "out" / "p1" / "labels.nii.gz") == [("p1", "labels.nii.gz")]  # named is named
    touch(tmp_path, "out/p1/imaging.nii.gz")
    assert len(found(tmp_path)) == 2
