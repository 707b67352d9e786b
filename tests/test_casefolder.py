"""What a results folder keeps: nobody's files are replaced unasked, no case of an earlier run is forgotten."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hilum.errors import OutputError
from hilum.files import read_json, write_json
from hilum.labels import SCHEMES
from hilum.pipeline import measure_files, segment
from hilum.pipeline.casefolder import CaseFolder, finished_cases
from hilum.scans import read_labels, write_labels, write_scan
from threshold_model import blocks, labels_of, scan_of, threshold_model

SPACING_MM = (2.0, 1.5, 1.0)
SHAPE = (9, 20, 21)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return threshold_model(tmp_path_factory.mktemp("models") / "thresholds").folder


def scan_at(path: Path, seed: int) -> Path:
    write_scan(path, scan_of(blocks(SHAPE, seed), SPACING_MM))
    return path


def test_another_patient_s_scan_of_the_same_name_is_refused(tmp_path: Path, model_folder: Path) -> None:
    first, second = scan_at(tmp_path / "a" / "ct.nii.gz", 0), scan_at(tmp_path / "b" / "ct.nii.gz", 1)
    out = tmp_path / "out"
    segment([first], model_folder, out, device="cpu")
    before = (out / "ct" / "labels.nii.gz").read_bytes()
    with pytest.raises(OutputError, match="other scans with the same names"):
        segment([second], model_folder, out, device="cpu")
    assert (out / "ct" / "labels.nii.gz").read_bytes() == before
    assert segment([second], model_folder, out, device="cpu", overwrite=True).done == ("ct",)
    labels = read_labels(out / "ct" / "labels.nii.gz", SCHEMES["kits"])
    assert (labels.array == blocks(SHAPE, 1)).all()


def test_the_summary_keeps_the_cases_of_earlier_runs(tmp_path: Path, model_folder: Path) -> None:
    out = tmp_path / "out"
    for number in (10, 9):
        segment([scan_at(tmp_path / f"c{number}.nii.gz", number)], model_folder, out, device="cpu")
    with open(out / "summary.csv", encoding="utf-8", newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["c9", "c10"]
    (out / "c9" / "measurements.json").write_text("{")
    write_json(out / "mine" / "case.json", ["not hilum's"])
    write_json(out / "mine" / "measurements.json", {})
    assert list(finished_cases(out)) == ["c10"]


@pytest.mark.parametrize("name", ["run.json", "summary.csv"])
def test_a_table_of_the_user_s_own_is_not_replaced(name: str, tmp_path: Path, model_folder: Path) -> None:
    scan, out = scan_at(tmp_path / "c.nii.gz", 0), tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"my": 1}')
    with pytest.raises(OutputError, match=f"holds a {name} that hilum segment did not write"):
        segment([scan], model_folder, out, device="cpu")
    assert (out / name).read_text() == '{"my": 1}' and len(list(out.iterdir())) == 1
    assert segment([scan], model_folder, out, device="cpu", overwrite=True).exit_code == 0


def test_parts_of_a_killed_run_are_swept(tmp_path: Path) -> None:
    scan = scan_at(tmp_path / "c.nii.gz", 0)
    folder = CaseFolder(tmp_path / "out" / "c", scan, {"name": "m", "hash": "1"}, {})
    folder.begin()
    (folder.path / ".part-abcdefgh-labels.nii.gz").write_bytes(b"half")
    (folder.path / "notes.txt").write_text("the user's")
    folder.begin()
    assert sorted(path.name for path in folder.path.iterdir()) == ["case.json", "notes.txt"]


def test_measuring_leaves_results_of_segment_and_of_other_label_maps_alone(tmp_path: Path, model_folder: Path) -> None:
    out = tmp_path / "out"
    segment([scan_at(tmp_path / "c.nii.gz", 0)], model_folder, out, device="cpu")
    page = (out / "c" / "report.html").read_bytes()
    with pytest.raises(OutputError, match=r"not of these label maps \(c\)"):
        measure_files([str(out)], "kits", out)
    assert (out / "c" / "report.html").read_bytes() == page and "model" in read_json(out / "c" / "case.json")
    measured = tmp_path / "measured"
    for _ in range(2):  # again into its own folder is no trouble
        assert measure_files([str(out)], "kits", measured).exit_code == 0
    other = tmp_path / "other" / "c.nii.gz"
    write_labels(other, labels_of(blocks(SHAPE, 1), SPACING_MM))
    with pytest.raises(OutputError, match="not of these label maps"):
        measure_files([str(other)], "kits", measured)
