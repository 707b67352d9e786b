"""Many references of one case, the pictures' files, and claims about means."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hilum.cli.judge import numbers_of
from hilum.errors import DatasetError, UsageError
from hilum.judge.claims import ways
from hilum.judge.evaluate import evaluate
from hilum.judge.scoring import CaseScore
from hilum.pages.evaluation import evaluation_report
from hilum.pages.loading import find_scans, stored_pictures
from hilum.runs import compare_and_report, evaluate_and_report

AFFINE = np.diag([3.0, 2.0, 2.0, 1.0])


def labels(shift: int = 0, lesion: int = 2) -> np.ndarray:
    array = np.zeros((14, 30, 30), np.uint8)
    array[2:12, 4:24, 4:24] = 1
    array[4:9, 6 + shift : 14 + shift, 6:14] = lesion
    return array


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


def sampled(root: Path) -> tuple[Path, Path]:
    """KiTS21's folders: a case with three samples in two groups."""
    case = root / "truth" / "case_00000"
    save(case / "aggregated_MAJ_seg.nii.gz", labels())
    save(case / "imaging.nii.gz", np.full((14, 30, 30), -50, np.int16))
    for name, shift in (("group1/a", 0), ("group1/b", 1), ("group2/a", 5)):
        save(case / "segmentation_samples" / f"{name}.nii.gz", labels(shift))
    save(root / "prediction" / "case_00000.nii.gz", labels(1))
    return root / "truth", root / "prediction"


def test_kits21_averages_over_sampled_segmentations(tmp_path: Path) -> None:
    truth, prediction = sampled(tmp_path)
    one = evaluate(truth, prediction, "kits21", tmp_path / "one")["cases"]["case_00000"]
    many = evaluate(truth, prediction, "kits21-samples", tmp_path / "many")
    single = []
    for i, name in enumerate(("group1/a", "group1/b", "group2/a")):
        file = truth / "case_00000" / "segmentation_samples" / f"{name}.nii.gz"
        scores = evaluate(file, prediction / "case_00000.nii.gz", "kits21", tmp_path / f"s{i}")
        single.append(next(iter(scores["cases"].values())))
    for metric in ("dice", "surface_dice"):
        want = np.mean([case["tumor"][metric] for case in single])
        assert many["cases"]["case_00000"]["tumor"][metric] == pytest.approx(want, rel=1e-12)
    assert many["cases"]["case_00000"]["tumor"] != one["tumor"]
    means = many["pooled"]["all_regions"]["mean_dice"]["value"]
    assert means == pytest.approx(np.mean([regions["dice"] for regions in many["cases"]["case_00000"].values()]))
    assert any("3 sampled" in text for text in many["warnings"])
    for file in (truth / "case_00000" / "segmentation_samples").rglob("*.nii.gz"):
        file.unlink()
    failed = evaluate(truth, prediction, "kits21-samples", tmp_path / "none")["failures"]
    assert "no sampled segmentations" in failed["case_00000"]


def folders(root: Path, cases: int = 4) -> tuple[Path, Path]:
    for i in range(cases):
        save(root / "labels" / f"case_{i}.nii.gz", labels(i % 2))
        ct = np.where(labels(i % 2) > 0, 40 + i, -1000).astype(np.int16)
        save(root / "images" / f"case_{i}_0000.nii.gz", ct)
        guess = labels(i % 2) if i else labels(lesion=1)  # the lesion of case_0 is missed
        guess[10, 20:23, 20:23] = 2 if i == 1 else guess[10, 20, 20]  # one is invented in case_1
        save(root / "guess" / f"case_{i}.nii.gz", guess)
    return root / "labels", root / "guess"


def test_each_missed_lesion_is_linked_and_pictured(tmp_path: Path) -> None:
    answer = evaluate_and_report(
        *folders(tmp_path),
        "plain",
        tmp_path / "out",
        scans=tmp_path / "images",
        suspects=True,
        claimed={"iou": 0.99},
        figures=True,
    )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for text in ("Lesions missed", "Lesions invented", "Labels to look at again", "one place in one case"):
        assert text in page, text
    assert page.count('href="#missed-case_0-') == 2 and page.count('id="missed-case_0-') == 1  # suspects and the list
    assert page.count('<div class="spot"') == 2 and page.count("<figure>") == 2 + 3 * 3 * 4
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {
        "scores.png",
        "scores.svg",
        "spread.svg",
        "best_case.png",
        "worst_case.svg",
        "bland_altman_tumor.png",
    } <= names
    assert any(x["kind"] == "claim" for x in answer["scores"]["audit"]["findings"])
    assert "case_0" in answer["text"]
    evaluate_and_report(*folders(tmp_path), "plain", tmp_path / "out")
    assert "Labels to look at again" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_page_is_drawn_when_label_maps_are_gone(tmp_path: Path) -> None:
    truth, guess = folders(tmp_path)
    files = evaluate(truth, guess, "plain", tmp_path / "out")["files"]
    for path in (*truth.iterdir(), *guess.iterdir()):
        path.unlink()
    page = evaluation_report(tmp_path / "out", pictures=stored_pictures(files)).read_text(encoding="utf-8")
    assert "Lesions missed" in page and "<figure>" not in page


def test_scans_are_found_by_name_beside_labels_or_not_at_all(tmp_path: Path) -> None:
    truth, _ = folders(tmp_path)
    files = {f"case_{i}": {"truth": str(truth / f"case_{i}.nii.gz"), "prediction": None} for i in range(4)}
    scan, first, second = stored_pictures(files)("case_1")  # images/ lies beside labels/
    assert scan is not None and scan.array.max() == 41 and first.array.max() == 2 and not second.array.any()
    assert set(find_scans(tmp_path / "images", files)) == set(files)
    with pytest.raises(DatasetError, match="no such folder"):
        find_scans(tmp_path / "nowhere", files)
    with pytest.raises(DatasetError, match="no scan of these cases"):
        find_scans(tmp_path, files)
    with pytest.raises(DatasetError, match="are gone"):
        stored_pictures({})("case_1")


def test_compare_draws_its_page(tmp_path: Path) -> None:
    truth, guess = folders(tmp_path)
    for name, side in (("a", guess), ("b", truth)):
        evaluate(truth, side, "plain", tmp_path / name)
    answer = compare_and_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert "report.html" in answer["text"] and (tmp_path / "out" / "report.html").is_file()
    assert not (tmp_path / "out" / "figures").exists()


def score(counts: dict[int, tuple[int, int, int]]) -> CaseScore:
    return CaseScore({}, label_counts=counts)


def test_where_a_claimed_mean_comes_from(tmp_path: Path) -> None:
    # 1000 voxels; 10 of label 2, of which nothing was found
    nothing = {"a": score({0: (990, 990, 1000), 2: (0, 10, 0)})}
    found = ways(nothing, "iou")
    assert found["labels"] == 0 and found["background"] == 0.99
    assert found["labels_and_background"] == found["binary_and_background"] == pytest.approx(0.495)
    assert ways(nothing, "accuracy") == {"voxels": 0.99}
    assert ways(nothing, "dice")["background"] == pytest.approx(2 * 990 / 1990)
    two = {"a": score({0: (900, 900, 900), 1: (50, 60, 50), 2: (40, 40, 50)})}
    assert ways(two, "iou")["labels"] == pytest.approx((50 / 60 + 40 / 50) / 2)
    assert ways(two, "iou")["binary_and_background"] == 1.0
    with pytest.raises(UsageError, match="claimed metric"):
        ways(two, "hd95")


def test_numbers_of_the_command_line(tmp_path: Path) -> None:
    assert numbers_of(["dice=0.01", "iou = 2"], "--margin") == {"dice": 0.01, "iou": 2.0}
    for text in ("dice", "dice=", "dice=much"):
        with pytest.raises(UsageError, match="--margin"):
            numbers_of([text], "--margin")
    with pytest.raises(UsageError, match="claimed metric"):
        evaluate(tmp_path, tmp_path, "plain", tmp_path / "out", claimed={"hd95": 1.0})


@pytest.mark.parametrize(
    ("value", "says"),
    [(0.99, "counts background in"), (0.0, "labels alone"), (0.7, "by no way of averaging")],
)
def test_claims_are_told_apart(tmp_path: Path, value: float, says: str) -> None:
    truth = np.zeros((14, 30, 30), np.uint8)
    truth[4:6, 4:8, 4:8] = 2
    save(tmp_path / "t" / "a.nii.gz", truth)
    save(tmp_path / "p" / "a.nii.gz", np.zeros_like(truth))
    scores = evaluate(tmp_path / "t", tmp_path / "p", "plain", tmp_path / "o", claimed={"iou": value})
    claim = scores["audit"]["claims"][0]
    assert says in claim["text"] and claim["with_background"] is (value == 0.99)
