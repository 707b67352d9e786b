"""Looking a data set over: each finding with a file that shows it, corrected copies that are right, leakage."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilum.cli import main
from hilum.datasets import open_dataset, write_folds
from hilum.errors import DatasetError, OutputError, UsageError
from hilum.labels import SCHEMES
from hilum.scans import read_labels, read_scan
from hilum.survey.findings import CODES, KINDS
from hilum.survey.inspecting import inspect_case
from hilum.survey.verify import as_text, cases_of, verify
from hilum.volume import require_same_grid
from making_cases import AFFINE, SPACING, body, write, write_lits
from making_dicom import make_series
from making_faults import MAKERS, flipped, kits

REAL = Path(__file__).parents[2] / "shared" / "data"


def look(kind: str, root: Path, out: Path, **options: Any) -> dict[str, Any]:
    return verify(kind, root, out, workers=1, **options)


def codes(report: dict[str, Any], case: str | None = None) -> list[str]:
    return [f["code"] for r in report["cases"] if case in (None, r["case"]) for f in r["findings"]]


def test_every_code_has_a_file_that_shows_it() -> None:
    assert set(MAKERS) | {"false-spacing"} == set(CODES)  # false-spacing: test_true_spacing_comes_from_another_copy
    assert {kind for kind, _ in CODES.values()} == set(KINDS)


@pytest.mark.parametrize("code", MAKERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_finding(code: str, tmp_path: Path) -> None:
    kind = MAKERS[code](tmp_path / "set")
    report = look(kind, tmp_path / "set", tmp_path / "out")
    twice = ("table-spacing", "no-orientation", "odd-axes", "spacing-unknown", "odd-shape")  # of image and label map
    besides = {"old-labels": {"in-doubt"}}
    assert set(codes(report)) == {code} | besides.get(code, set())
    assert codes(report).count(code) == 1 + (code in twice)
    expected = CODES[code][0]
    assert report["summary"][expected] == 1 and report["summary"]["clean"] == 0
    words = ["data", "verify", f"{kind}={tmp_path / 'set'}", "--out", str(tmp_path / "out"), "--quiet", "--json"]
    assert main(words) == (1 if expected == "broken" else 0)


def test_a_clean_set_and_its_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1):
        write_lits(tmp_path / "set", number)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "set").iterdir()}
    assert main(["data", "verify", f"lits={tmp_path / 'set'}", "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert "2 cases, 2 without any finding" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "verify.json").read_text())
    facts = report["cases"][0]
    hu, labels = body(0)
    assert facts["image"]["hu_min"] == hu.min() and facts["image"]["hu_max"] == hu.max()
    assert facts["labels"]["voxels"] == {"1": int((labels == 1).sum()), "2": int((labels == 2).sum())}
    page = (tmp_path / "out" / "verify.html").read_text()
    assert "volume-0" in page and "not a medical device" in page
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "set").iterdir()} == before


@pytest.mark.parametrize("code", ["axis-order", "flip", "shift", "spacing-differs", "table-spacing", "mirrored"])
def test_fixed_copies_are_right(code: str, tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    kind = MAKERS[code](root)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    report = look(kind, root, out, fix=True)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before, "never in place"
    (entry,) = report["fixed"]
    assert entry["done"][0]["code"] == code and entry["files"]
    assert json.loads((out / "fixed" / "fix_log.json").read_text()) == report["fixed"]
    dataset = open_dataset("folder", out / "fixed" / "manifest.csv")
    assert dataset.scheme == (SCHEMES["kits19"] if kind == "kits19" else SCHEMES["lits"])
    (case,) = dataset.cases
    image, labels = read_scan(case.image), read_labels(case.labels or Path(), SCHEMES["lits"])
    require_same_grid(image, labels)
    hu, truth = body(1 if kind == "kits19" else 0)
    assert np.array_equal(image.oriented("RAS").array, hu)
    assert np.array_equal(labels.oriented("RAS").array, truth)
    if code == "table-spacing":
        assert sorted(image.spacing_mm) == [5, 8, 8]
    elif code != "mirrored":
        assert image.grid.distance_mm(labels.grid) < 1e-3 and np.allclose(sorted(image.spacing_mm), [8, 8, 10])
    again = look("folder", out / "fixed" / "manifest.csv", tmp_path / "again")
    assert again["summary"]["clean"] == 1


def test_a_label_map_on_another_grid_is_resampled_where_its_affine_is_right(tmp_path: Path) -> None:
    write_lits(tmp_path / "set", 0)
    rolled = np.roll(body()[1], 5, axis=0)  # the array lies 5 voxels off, and its affine says so
    affine = np.array(AFFINE)
    affine[0, 3] -= 5 * SPACING[0]
    write(tmp_path / "set" / "segmentation-0.nii", rolled, affine)
    report = look("lits", tmp_path / "set", tmp_path / "out", fix=True)
    assert codes(report) == ["shift"] and "affines are right" in report["cases"][0]["findings"][0]["text"]
    labels = read_labels(tmp_path / "out" / "fixed" / "volume-0" / "segmentation.nii.gz", SCHEMES["lits"])
    assert np.array_equal(labels.array, body()[1])


def test_true_spacing_comes_from_another_copy(tmp_path: Path) -> None:
    lits, msd = tmp_path / "lits", tmp_path / "msd"
    write_lits(lits, 30, affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    write_lits(lits, 31, affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    hu, labels = body(30)
    write(msd / "imagesTr" / "liver_30.nii.gz", np.clip(hu[::-1], -1000, 1023).astype(np.float32), flipped(0))
    write(msd / "labelsTr" / "liver_30.nii.gz", labels[::-1], flipped(0))
    rows = [{"image": "imagesTr/liver_30.nii.gz", "label": "labelsTr/liver_30.nii.gz"}]
    table = {"modality": {"0": "CT"}, "labels": {"0": "b", "1": "liver", "2": "cancer"}, "training": rows}
    (msd / "dataset.json").write_text(json.dumps(table))
    report = look("lits", lits, tmp_path / "out", against=[("msd", msd)], fix=True)
    assert codes(report, "volume-30") == ["false-spacing"] * 2 and codes(report, "volume-31") == ["spacing-unknown"] * 2
    shared = [leak for leak in report["leakage"] if leak["code"] == "shared-scans"]
    assert shared[0]["pairs"] == [["volume-30", "liver_30"]]  # flipped, clipped, floats: the same scan
    place = tmp_path / "out" / "fixed" / "volume-30"
    image, map_ = read_scan(place / "imaging.nii.gz"), read_labels(place / "segmentation.nii.gz", SCHEMES["lits"])
    require_same_grid(image, map_)
    assert image.spacing_mm == pytest.approx(SPACING) and np.array_equal(image.array, hu)
    assert [case.name for case in open_dataset("folder", tmp_path / "out" / "fixed" / "manifest.csv").cases] == [
        "volume-30"
    ]


def test_two_faults_of_one_case_are_put_right_in_order(tmp_path: Path) -> None:
    hu, labels = body(30)  # the image lost its spacing, the label map did not
    write(tmp_path / "lits" / "volume-30.nii", hu, np.eye(4))
    write(tmp_path / "lits" / "segmentation-30.nii", labels)
    rows = "image,label,case\n../lits/volume-30.nii,../lits/segmentation-30.nii,x\n"
    write(tmp_path / "other" / "scan.nii.gz", hu)
    (tmp_path / "other" / "list.csv").write_text(rows.replace("../lits/volume-30.nii", "scan.nii.gz"))
    against = [("folder", tmp_path / "other" / "list.csv")]
    report = look("lits", tmp_path / "lits", tmp_path / "out", against=against, fix=True)
    assert [item["code"] for item in report["fixed"][0]["done"]] == ["false-spacing", "spacing-differs"]
    place = tmp_path / "out" / "fixed" / "volume-30"
    image, map_ = read_scan(place / "imaging.nii.gz"), read_labels(place / "segmentation.nii.gz", SCHEMES["lits"])
    require_same_grid(image, map_)
    assert image.spacing_mm == pytest.approx(SPACING) and np.array_equal(map_.array, labels)


def test_leakage_within_between_and_across_folds(tmp_path: Path) -> None:
    root = tmp_path / "lits"
    for number in (0, 1, 2):
        write_lits(root, number)
    write_lits(root, 3, seed=0)  # the same scan and labels under another number
    write_folds(tmp_path / "folds.json", (("volume-0", "volume-1"), ("volume-2", "volume-3")))
    report = look("lits", root, tmp_path / "out", folds=tmp_path / "folds.json")
    found = {leak["code"]: leak["cases"] for leak in report["leakage"] if leak["cases"]}
    assert found == {
        key: ["volume-0", "volume-3"] for key in ("same-image", "same-labels", "fold-images", "fold-labels")
    }
    kits(tmp_path / "kits19", "case_00005")
    kits(tmp_path / "kits23", "case_00005")
    kits(tmp_path / "kits23", "case_00400")
    report = look("kits23", tmp_path / "kits23", tmp_path / "out23", against=[("kits19", tmp_path / "kits19")])
    told = [leak["text"] for leak in report["leakage"]]
    assert any(text.startswith("1 patients of kits23 are in kits19 too: case_00005") for text in told)
    assert any("must not be tested on another" in text for text in told)
    assert "leakage: 1 scans of kits23 are in kits19 too" in as_text(report)


def test_it_remembers_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    for number in range(3):
        write_lits(root, number)
    seen: list[str] = []

    def counted(order: Any) -> dict[str, Any]:
        seen.append(order.case.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return inspect_case(order)

    monkeypatch.setattr("hilum.survey.looking.inspect_case", counted)
    with pytest.raises(KeyboardInterrupt):
        look("lits", root, out)
    with open(out / "looked_at.jsonl", "a") as file:
        file.write('{"case": "volume-2", "key"')  # a kill within a line
    look("lits", root, out)
    assert seen == ["volume-0", "volume-1", "volume-2", "volume-2"]
    look("lits", root, out)
    assert len(seen) == 4
    write(root / "segmentation-1.nii", np.maximum(body(1)[1], 1))
    assert look("lits", root, out)["cases"][1]["labels"]["voxels"]["1"] > 10_000
    assert seen[4:] == ["volume-1"]


def test_in_processes_as_in_one(tmp_path: Path) -> None:
    for number in range(3):
        write_lits(tmp_path / "set", number)
    one = look("lits", tmp_path / "set", tmp_path / "a")
    assert verify("lits", tmp_path / "set", tmp_path / "b", workers=2)["cases"] == one["cases"]


def test_bad_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lits(tmp_path / "set", 0)
    (tmp_path / "empty").mkdir()
    for kind in ("folder", "lits", "kits23", "msd", "ircadb", "phantom"):
        with pytest.raises(DatasetError):
            look(kind, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError, match="is the data set itself"):
        look("lits", tmp_path / "set", tmp_path / "set")
    with pytest.raises(UsageError, match="lies in the data set"):
        look("lits", tmp_path / "set", tmp_path / "set" / "verified")
    assert main(["data", "verify", "lits", "--quiet"]) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        look("lits", tmp_path / "set", tmp_path / "file" / "out")


def test_cut_off_files_are_broken_with_their_reason(tmp_path: Path) -> None:
    case = kits(tmp_path / "set", "case_00001")
    data = (case / "segmentation.nii.gz").read_bytes()
    (case / "segmentation.nii.gz").write_bytes(data[: len(data) // 2])
    other = kits(tmp_path / "set", "case_00002")
    (other / "imaging.nii.gz").write_bytes(b"")
    third = kits(tmp_path / "set", "case_00003")
    (third / "imaging.nii.gz").write_bytes(gzip.compress(b"not a scan" * 100))
    report = look("kits23", tmp_path / "set", tmp_path / "out")
    assert report["summary"]["broken"] == 3 and codes(report) == ["unreadable"] * 3
    text = as_text(report)
    assert "cut off" in text and "empty" in text and "no NIfTI" in text


def test_dicom_folders_beside_pairs_are_cases_too(tmp_path: Path) -> None:
    hu, labels = body()
    for volume, name in ((hu, "ct"), (labels, "labels")):
        write(tmp_path / "data" / "p1" / f"{name}.nii.gz", volume)
    make_series(tmp_path / "data" / "p2", hu.transpose(2, 1, 0), step=(0, 0, 3.0))
    make_series(tmp_path / "data" / "more" / "p1", hu.transpose(2, 1, 0), step=(0, 0, 3.0))
    assert [case.name for case in cases_of("folder", tmp_path / "data").cases] == ["p1", "more_p1", "p2"]
    report = look("folder", tmp_path / "data", tmp_path / "out", scheme=SCHEMES["kits"])
    missing = [r["case"] for r in report["cases"] if "no-label-map" in {f["code"] for f in r["findings"]}]
    assert missing == ["more_p1", "p2"]
    (tmp_path / "data" / "manifest.csv").write_text("image,label\np1/ct.nii.gz,p1/labels.nii.gz\n")
    assert len(cases_of("folder", tmp_path / "data").cases) == 1, "a manifest says what counts"


def test_a_folder_of_label_maps_alone(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / "maps" / f"p{number}.nii.gz", body(number)[1])
    write(tmp_path / "maps" / "p3.nii.gz", body()[1] * 9)
    report = look("folder", tmp_path / "maps", tmp_path / "out", labels_only=True, scheme=SCHEMES["lits"])
    assert report["summary"]["cases"] == 3 and report["summary"]["clean"] == 2 and codes(report) == ["no-labels"]


@pytest.mark.parametrize(
    ("place", "kind", "expected"),
    [
        ("real/totalsegmentator_ct", "folder", {"padding"}),
        ("real/ircadb01_dicom", "folder", {"no-label-map"}),
        ("real/cptac_pda_dicom", "folder", {"no-label-map", "padding"}),
        ("dicom/jpeg2000_ct", "folder", {"no-label-map", "thickness"}),
    ],
)
def test_real_scans(place: str, kind: str, expected: set[str], tmp_path: Path) -> None:
    if not (REAL / place).exists():
        pytest.skip("the real scans are not here")
    report = look(kind, REAL / place, tmp_path / "out", scheme=SCHEMES["abdomen"])
    assert report["summary"]["cases"] == 1 and report["summary"]["broken"] == 0
    assert set(codes(report)) == expected


def test_real_label_maps(tmp_path: Path) -> None:
    if not (REAL / "kits23_labels").is_dir():
        pytest.skip("the real label maps are not here")
    (tmp_path / "few").mkdir()
    for name in ("case_00010", "case_00011"):
        (tmp_path / "few" / f"{name}.nii.gz").symlink_to(REAL / "kits23_labels" / f"{name}.nii.gz")
    report = look("kits23", tmp_path / "few", tmp_path / "out", labels_only=True)
    assert report["summary"]["clean"] == 2 and not codes(report)
    assert set(codes(look("kits23", tmp_path / "few", tmp_path / "out"))) == {"missing"}
