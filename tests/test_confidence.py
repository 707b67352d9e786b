"""FROC and calibration: worked numbers, brute force, and files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from hilum.errors import DatasetError
from hilum.judge.confidence import FLOOR, RATES, Confidence, confidence_table, ece, measure_confidence
from hilum.judge.evaluate import evaluate

VOLUMES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(bool, shape),
        hnp.arrays(np.float64, shape, elements=st.sampled_from((0.0, 0.05, 0.2, 0.5, 0.9, 1.0))),
    )
)


def case(found: list[float], invented: list[float]) -> Confidence:
    return Confidence(np.array(found), np.array(invented), np.zeros((10, 3)), 0.0)


def test_froc_by_hand() -> None:
    # lesions found at 0.9, 0.6 and never; false candidates at 0.8, 0.5, 0.4: two scans
    table = confidence_table([case([0.9, 0.0], [0.8]), case([0.6], [0.5, 0.4])], ["a", "b"], True)["froc"]
    assert table["lesions"] == 3
    points = [(fp, sensitivity) for fp, sensitivity, _ in table["curve"]]
    assert points == [(0, 1 / 3), (0.5, 1 / 3), (0.5, 2 / 3), (1.0, 2 / 3), (1.5, 2 / 3)]
    at = {rate: cell["value"] for rate, cell in zip(RATES, table["sensitivity"], strict=True)}
    assert at == {0.125: 1 / 3, 0.25: 1 / 3, 0.5: 2 / 3, 1.0: 2 / 3, 2.0: 2 / 3, 4.0: 2 / 3, 8.0: 2 / 3}
    assert table["mean_sensitivity"]["value"] == pytest.approx((2 / 3 + 5 * 2 / 3) / 7)
    cell = table["sensitivity"][3]
    assert cell["low"] <= cell["value"] <= cell["high"]


def test_a_first_candidate_that_is_wrong_leaves_nothing_at_low_rates() -> None:
    table = confidence_table([case([0.5], [0.9])], ["a"], True)["froc"]
    assert [cell["value"] for cell in table["sensitivity"]] == [0, 0, 0, 1, 1, 1, 1]
    assert np.isnan(table["sensitivity"][0]["low"])


def test_calibration_by_hand() -> None:
    truth, shares = np.zeros((1, 1, 5), bool), np.array([[[0.0, 0.2, 0.2, 0.9, 0.9]]])
    truth[0, 0, [2, 3, 4]] = True
    found = measure_confidence(truth, shares)
    assert found.bins[2].tolist() == pytest.approx([2, 0.4, 1])  # two voxels of 0.2, one of them true
    assert found.bins[9].tolist() == pytest.approx([2, 1.8, 2])
    assert ece(found.bins) == pytest.approx((abs(0.4 - 1) + abs(1.8 - 2)) / 4)
    assert found.square == pytest.approx(0.04 + 0.64 + 0.01 + 0.01)
    table = confidence_table([found], ["a"], False)
    assert "froc" not in table and table["calibration"]["brier"]["value"] == pytest.approx(0.7 / 4)
    assert table["calibration"]["bins"][2]["observed"] == 0.5


@given(VOLUMES)
@settings(max_examples=60, deadline=None)
def test_candidates_agree_with_the_definition(volumes: tuple[np.ndarray, np.ndarray]) -> None:
    truth, shares = volumes
    found = measure_confidence(truth, shares)
    ones = np.ones((3, 3, 3))
    lesions, n_lesions = ndimage.label(truth, ones)
    candidates, n_candidates = ndimage.label(shares >= FLOOR, ones)
    sure = [shares[candidates == c + 1].max() for c in range(n_candidates)]
    touched = [
        [c for c in range(n_candidates) if ((candidates == c + 1) & (lesions == k + 1)).any()] for k in range(n_lesions)
    ]
    assert sorted(found.found) == sorted(max((sure[c] for c in mine), default=0.0) for mine in touched)
    alone = [sure[c] for c in range(n_candidates) if not any(c in mine for mine in touched)]
    assert sorted(found.invented) == sorted(alone)
    field = truth | (shares > 0)
    assert found.bins[:, 0].sum() == field.sum() and found.bins[:, 2].sum() == truth.sum()


@given(VOLUMES)
@settings(max_examples=30, deadline=None)
def test_froc_never_falls(volumes: tuple[np.ndarray, np.ndarray]) -> None:
    table = confidence_table([measure_confidence(*volumes)] * 2, ["a", "b"], True)
    if "froc" in table:
        marks = [cell["value"] for cell in table["froc"]["sensitivity"]]
        assert marks == sorted(marks) and marks[0] >= 0 and marks[-1] <= 1


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def folders(root: Path, cases: int = 3) -> tuple[Path, Path]:
    for i in range(cases):
        truth = np.zeros((8, 12, 12), np.uint8)
        truth[1:7, 1:10, 1:10] = 1
        truth[2:4, 3:6, 3:6] = 2
        save(root / "truth" / f"case_{i}.nii.gz", truth)
        save(root / "prediction" / f"case_{i}" / "labels.nii.gz", truth)
        for label, value in (("kidney", 1), ("tumour", 2), ("cyst", 3)):
            shares = np.where(truth == value, 204, 0).astype(np.uint8)
            if label == "tumour":
                shares[6, 9, 9] = 128  # half a tumour that is none
            save(root / "prediction" / f"case_{i}" / f"probabilities_{label}.nii.gz", shares)
    return root / "truth", root / "prediction"


def test_probabilities_beside_predictions_are_found(tmp_path: Path) -> None:
    scores = evaluate(*folders(tmp_path), "kits23", tmp_path / "out")
    assert set(scores["confidence"]) == {"kidney_and_mass", "mass", "tumor"}
    assert "froc" not in scores["confidence"]["kidney_and_mass"]
    froc = scores["confidence"]["tumor"]["froc"]
    assert froc["lesions"] == 3 and [cell["value"] for cell in froc["sensitivity"]] == [1.0] * 7
    assert froc["curve"][-1][0] == 1.0  # one false candidate a scan, at 0.5
    assert scores["confidence"]["tumor"]["calibration"]["bins"][8]["observed"] == 1.0


def test_probabilities_of_a_folder_and_bad_ones(tmp_path: Path) -> None:
    truth, prediction = folders(tmp_path)
    flat = tmp_path / "flat"
    for i in range(3):
        save(flat / f"case_{i}.nii.gz", np.asanyarray(nib.load(truth / f"case_{i}.nii.gz").dataobj))
    assert evaluate(truth, flat, "kits23", tmp_path / "a")["confidence"] == {}
    assert "tumor" in evaluate(truth, flat, "kits23", tmp_path / "b", probabilities=prediction)["confidence"]
    with pytest.raises(DatasetError, match="holds no probabilities"):
        evaluate(truth, flat, "kits23", tmp_path / "c", probabilities=truth)
    (prediction / "case_1" / "probabilities_tumour.nii.gz").unlink()
    save(prediction / "case_2" / "probabilities_tumour.nii.gz", np.full((8, 12, 12), 7.5, np.float32))
    scores = evaluate(truth, prediction, "kits23", tmp_path / "d")
    assert "probabilities" in scores["failures"]["case_2"] and "7.5" in scores["failures"]["case_2"]
    assert scores["confidence"]["tumor"]["froc"]["lesions"] == 1  # case_1 has no tumour file
