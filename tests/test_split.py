"""Left and right: each side its own label, by the patient's axis, whatever the file's; what is odd is flagged."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.cli import main
from hilum.datasets import open_dataset, read_folds
from hilum.errors import GeometryError, UsageError
from hilum.labels import SCHEMES
from hilum.scans import read_labels
from hilum.survey.split import sided_scheme, split_sides
from hilum.volume import Volume
from making_cases import write

REAL = Path(__file__).parents[2] / "shared" / "data"
KITS = SCHEMES["kits"]
SHAPE = (60, 30, 40)  # RAS at 4 mm: 240 mm across, 160 mm along
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = (-500.0, 20.0, -300.0)  # the scanner's zero lies outside the patient


def ball(array: np.ndarray, centre: tuple[int, int, int], radius: float, value: int) -> None:
    i, j, k = np.indices(array.shape)
    array[(i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (k - centre[2]) ** 2 <= radius**2] = value


def kidneys(*balls: tuple[tuple[int, int, int], float, int]) -> Volume:
    array = np.zeros(SHAPE, np.uint8)
    for centre, radius, value in balls:
        ball(array, centre, radius, value)
    return Volume(array, AFFINE)


RIGHT, LEFT = (45, 12, 20), (15, 12, 22)
PAIR = ((RIGHT, 7, 1), (LEFT, 6, 1), ((50, 12, 22), 2, 2), ((12, 12, 25), 2, 3))


def scan_of(labels: Volume) -> Volume:
    """A body around the spine at the middle of the array."""
    i, j, _ = np.indices(labels.shape)
    inside = ((i - 29.5) / 28) ** 2 + ((j - 14.5) / 13) ** 2 < 1
    return labels.with_array(np.where(inside, 40, -1000).astype(np.int16))


def counts(labels: Volume) -> dict[int, int]:
    return {int(v): int(n) for v, n in zip(*np.unique(labels.array, return_counts=True), strict=True) if v}


def test_schemes_after_the_split() -> None:
    new = sided_scheme(KITS)
    assert [(x.value, x.name, x.side, x.kind) for x in new.labels] == [
        (1, "right kidney", "right", "organ"),
        (2, "left kidney", "left", "organ"),
        (3, "tumour", "", "tumour"),
        (4, "cyst", "", "cyst"),
    ]
    assert {r.name: r.labels for r in new.regions} == {
        "kidney_and_mass": (1, 2, 3, 4), "mass": (3, 4), "tumor": (3,), "right_kidney": (1,), "left_kidney": (2,),
    }  # fmt: skip
    assert new.sided and [x.name for x in sided_scheme(SCHEMES["kits19"]).labels][2] == "tumour"
    for name in ("lits", "abdomen", "ircadb"):
        with pytest.raises(UsageError, match="no organ of which one label covers both sides"):
            sided_scheme(SCHEMES[name])


@pytest.mark.parametrize("with_scan", [True, False])
def test_two_kidneys(with_scan: bool) -> None:
    labels = kidneys(*PAIR)
    split = split_sides(labels, KITS, scan_of(labels) if with_scan else None)
    before, after = counts(labels), counts(split.labels)
    assert after[1] + after[2] == before[1] and after[3] == before[2] and after[4] == before[3]
    assert after[1] == split.voxels["right kidney"] > after[2] == split.voxels["left kidney"]
    assert split.labels.array[RIGHT] == 1 and split.labels.array[LEFT] == 2 and split.flags == ()
    assert np.array_equal(split.labels.array > 0, labels.array > 0)


@settings(max_examples=20, deadline=None)
@given(st.permutations("RAS"), st.lists(st.booleans(), min_size=3, max_size=3))
def test_the_patient_s_own_axis_decides_not_the_array_s(order: list[str], turn: list[bool]) -> None:
    opposite = {"R": "L", "A": "P", "S": "I"}
    codes = "".join(opposite[c] if t else c for c, t in zip(order, turn, strict=True))
    labels = kidneys(*PAIR)
    turned = split_sides(labels.oriented(codes), KITS)
    assert turned.labels.codes == codes
    assert np.array_equal(turned.labels.oriented("RAS").array, split_sides(labels, KITS).labels.array)
    mirrored = split_sides(Volume(labels.array, np.diag([-1.0, 1, 1, 1]) @ AFFINE), KITS)
    assert mirrored.labels.array[RIGHT] == 2 and mirrored.labels.array[LEFT] == 1


def test_one_kidney_is_told_by_the_body(tmp_path: Path) -> None:
    for centre, side, value in ((RIGHT, "right", 1), (LEFT, "left", 2)):
        labels = kidneys((centre, 7, 1))
        split = split_sides(labels, KITS, scan_of(labels))
        assert counts(split.labels) == {value: counts(labels)[1]}
        assert [code for code, _ in split.flags] == ["one"] and f"only the {side} kidney" in split.flags[0][1]


def test_horseshoe_is_cut_between(tmp_path: Path) -> None:
    array = kidneys((RIGHT, 8, 1), (LEFT, 8, 1)).array.copy()
    array[LEFT[0] : RIGHT[0], 11:14, 19:22] = 1  # the isthmus
    labels = Volume(array, AFFINE)
    split = split_sides(labels, KITS, scan_of(labels))
    assert [code for code, _ in split.flags] == ["horseshoe"]
    assert split.labels.array[RIGHT] == 1 and split.labels.array[LEFT] == 2
    after = counts(split.labels)
    assert set(after) == {1, 2} and 0.8 < after[1] / after[2] < 1.25


def test_transplant_and_third_pieces_are_flagged() -> None:
    labels = kidneys((RIGHT, 4, 1), (LEFT, 4, 1), ((44, 20, 5), 4, 1))
    assert "pieces" in [code for code, _ in split_sides(labels, KITS, scan_of(labels)).flags]
    low = kidneys((RIGHT, 6, 1), ((15, 20, 4), 4, 1))
    array = np.zeros((60, 30, 80), np.uint8)
    array[:, :, :40] = low.array
    array[:, :, 20:60] = np.maximum(array[:, :, 20:60], 0)
    ball(array, (45, 12, 60), 6, 1)
    array[:, :, 10:40][40:] = 0
    array[40:, :, :40] = 0
    split = split_sides(Volume(array, AFFINE), KITS)
    assert "low" in [code for code, _ in split.flags]
    assert any("transplant" in text for _, text in split.flags)


def test_no_kidney_and_another_grid() -> None:
    empty = kidneys()
    split = split_sides(empty, KITS)
    assert not split.labels.array.any() and split.flags == (("none", "there is no kidney"),)
    labels = kidneys(*PAIR)
    with pytest.raises(GeometryError):
        split_sides(labels, KITS, Volume(scan_of(labels).array, np.diag([4.0, 4, 4, 1])))


def kits_set(root: Path, count: int = 3) -> Path:
    for number in range(count):
        labels = kidneys((RIGHT, 7, 1), (LEFT, 6, 1), ((47, 12, 22), 1 + number, 2))
        write(root / f"case_{number:05d}" / "imaging.nii.gz", scan_of(labels).array, AFFINE)
        write(root / f"case_{number:05d}" / "segmentation.nii.gz", labels.array, AFFINE)
    return root


def test_verb_writes_maps_beside_that_can_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = kits_set(tmp_path / "kits23"), tmp_path / "sides"
    before = {p: p.read_bytes() for p in root.rglob("*.gz")}
    words = ["data", "split", f"kits23={root}", "--out", str(out), "--quiet"]
    assert main(words) == 0
    assert "1 right kidney" in capsys.readouterr().out
    dataset = open_dataset("folder", out / "manifest.csv")
    assert dataset.scheme == sided_scheme(KITS) and len(dataset.cases) == 3
    case = dataset.case("case_00001")
    assert case.image == root.absolute() / "case_00001" / "imaging.nii.gz"
    made = read_labels(case.labels or Path(), sided_scheme(KITS))
    assert np.array_equal(made.affine, nib.load(root / "case_00001" / "segmentation.nii.gz").affine)
    assert made.array[RIGHT] == 1 and made.array[LEFT] == 2
    assert {p: p.read_bytes() for p in root.rglob("*.gz")} == before
    times = {p: p.stat().st_mtime_ns for p in out.glob("labels/*")}
    assert main([*words, "--json"]) == 0  # what is there is kept
    assert {p: p.stat().st_mtime_ns for p in out.glob("labels/*")} == times
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["cases"]) == {"case_00000", "case_00001", "case_00002"} and not answer["failed"]
    assert main(["data", "split", f"kits23={root}", "--out", str(root), "--quiet"]) == 2
    assert main(["data", "split", f"kits23={root}", "--out", str(tmp_path / "x"), "--scheme", "lits", "--quiet"]) == 2


def test_a_bad_map_does_not_stop_the_others(tmp_path: Path) -> None:
    root = kits_set(tmp_path / "kits23")
    write(root / "case_00001" / "segmentation.nii.gz", kidneys(*PAIR).array * 9, AFFINE)
    assert main(["data", "split", f"kits23={root}", "--out", str(tmp_path / "s"), "--quiet"]) == 1
    notes = json.loads((tmp_path / "s" / "sides.json").read_text())
    assert list(notes["failed"]) == ["case_00001"] and len(notes["cases"]) == 2


def test_folds_verb_is_even_in_lesions_and_the_same_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, file = kits_set(tmp_path / "kits23", 6), tmp_path / "folds.json"
    assert main(["data", "folds", f"kits23={root}", "--out", str(file), "--count", "3", "--quiet", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [fold["cases"] for fold in answer["folds"]] == [2, 2, 2]
    folds = read_folds(file, open_dataset("kits23", root).cases)
    for fold in folds:  # sizes grow with the number: one of the three smallest, one of the three largest
        assert sorted(int(name[-1]) // 3 for name in fold) == [0, 1]
    text = file.read_text()
    assert main(["data", "folds", f"kits23={root}", "--out", str(file), "--count", "3", "--quiet"]) == 0
    assert file.read_text() == text
    assert main(["data", "folds", f"kits23={root}", "--out", str(file), "--count", "9", "--quiet"]) == 1
    assert main(["data", "folds", f"kits23={root}", "--out", str(file), "--count", "1", "--quiet"]) == 2


def test_real_label_maps_split() -> None:
    if not (REAL / "kits23_labels").is_dir():
        pytest.skip("the real label maps are not here")
    labels = read_labels(REAL / "kits23_labels" / "case_00010.nii.gz", KITS)
    split = split_sides(labels, KITS)
    assert split.labels.grid.same_as(labels.grid) and np.array_equal(split.labels.array > 0, labels.array > 0)
    assert min(split.voxels.values()) > 0
