"""What the audit says of made cases, sentence by sentence."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pytest

from hilum.judge.audit import audit, mean_iou, resampled
from hilum.judge.evaluate import scheme_of
from hilum.judge.jobs import score_pair
from hilum.judge.pair import make_pair
from hilum.judge.protocols import protocol_named
from hilum.judge.scoring import CaseScore, ScoreOptions
from hilum.labels import SCHEMES
from hilum.volume import Volume

KITS = SCHEMES["kits"]


def kidney(tumour: int = 0, tumour_rows: int = 4) -> np.ndarray:
    """40 x 30 x 30 with 6000 voxels of label 1; the tumour (some more rows on it) has label 2."""
    array = np.zeros((40, 30, 30), np.uint8)
    for k in range(10, 30):  # a border that moves with each slice, as an organ's does
        array[k, 5 + k % 3 : 20 + k % 3, 5 + k % 2 : 25 + k % 2] = 1
    if tumour:
        array[12:24, 6 : 6 + tumour_rows, 8:20] = tumour
    return array


def scored(truth: np.ndarray, prediction: np.ndarray, protocol: str = "plain", spacing: float = 1.0) -> CaseScore:
    rules = protocol_named(protocol)
    volumes = Volume(truth, np.eye(4)), Volume(prediction, np.diag([spacing] * 3 + [1.0]))
    pair, warnings = make_pair(*volumes, rules.same_grid)
    return score_pair(pair, warnings, volumes, rules, scheme_of(rules, None), ScoreOptions(tolerances_mm=(1.0,)))


def told(
    scores: Mapping[str, CaseScore],
    kind: str,
    patients: Mapping[str, str] | None = None,
    trained_on: Collection[str] = (),
) -> list[dict[str, Any]]:
    return [x for x in audit(scores, KITS, patients, trained_on)["findings"] if x["kind"] == kind]


def test_a_model_that_finds_nothing_has_a_high_mean_iou_with_background() -> None:
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[:2, :10, :2] = 2  # 40 of 8000 voxels
    means = mean_iou({"a": scored(truth, np.zeros_like(truth), "nnunet")})
    assert means["without_background"] == 0
    assert means["background_alone"] == pytest.approx(7960 / 8000)
    assert means["with_background"] == means["nothing_found"] == pytest.approx(7960 / 8000 / 2)
    half = truth.copy()
    half[0] = 0
    means = mean_iou({"a": scored(truth, half, "nnunet")})
    assert means["without_background"] == pytest.approx(0.5)
    assert means["with_background"] == pytest.approx((0.5 + 7960 / 7980) / 2)
    text = told({"a": scored(truth, half, "nnunet")}, "background")[0]["text"]
    assert "0.500" in text and "0.749" in text
    assert mean_iou({"a": scored(np.zeros_like(truth), np.zeros_like(truth), "nnunet")}) == {}


def test_classes_absent_or_never_predicted() -> None:
    scores = {"a": scored(kidney(2), kidney()), "b": scored(kidney(), kidney())}
    never = told(scores, "never_predicted")
    assert [x["cases"] for x in never] == [["a"]]
    assert "1 of 2 cases (a)" in never[0]["text"]
    absent = told(scores, "absent")
    assert len(absent) == 1
    assert "cyst" in absent[0]["text"] and "error" not in absent[0]["text"]
    invented = {"a": scored(kidney(), kidney(3))}
    assert any("every voxel of it in a prediction is an error" in x["text"] for x in told(invented, "absent"))


def test_a_mean_of_two_groups() -> None:
    good = {f"good_{i}": scored(kidney(2), kidney(2)) for i in range(4)}
    missed = {"missed": scored(kidney(2), kidney())}
    assert told(good, "bimodal") == []
    found = [x for x in told(good | missed, "bimodal") if x["text"].startswith("tumor dice")]
    assert found[0]["cases"] == ["missed"]
    assert "mean of 0.800 hides" in found[0]["text"] and "the other 4 with a mean of 1.000" in found[0]["text"]
    assert told(missed, "bimodal") == []


def test_cases_that_count_as_one_because_nothing_is_there() -> None:
    scores = {"a": scored(kidney(2), kidney(2, 2), "kits23")}
    assert told(scores, "trivial") == []
    dice = scores["a"].values["tumor"]["dice"]
    scores |= {"b": scored(kidney(), kidney(), "kits23")}
    found = next(x for x in told(scores, "trivial") if x["text"].startswith("tumor dice"))
    assert found["cases"] == ["b"]
    assert f"without them the mean is {dice:.3f}, not {(1 + dice) / 2:.3f}" in found["text"]
    only = told({"b": scores["b"]}, "trivial")
    assert "no other case is left" in only[0]["text"]


def test_accuracy_and_specificity_that_background_carries() -> None:
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[:2, :10, :2] = 2  # 40 of 8000 voxels
    nothing = np.zeros_like(truth)
    (found,) = told({"a": scored(truth, nothing)}, "carried")
    assert "tumor 0.9950 (here 0.9950, and a specificity of 1.0000 where that model has 1)" in found["text"]
    assert "every voxel of the stored array" in found["text"]
    extra = truth.copy()
    extra[10, 10, :20] = 2  # 20 of 7960 background voxels
    (found,) = told({"a": scored(truth, extra), "b": scored(truth, truth)}, "carried")
    share = (1 + 7940 / 7960) / 2
    assert f"tumor 0.9950 (here {1 - 10 / 8000:.4f}, and a specificity of {share:.4f} where" in found["text"]
    filled = np.full_like(truth, 2)
    filled[:4] = 0  # a region that fills four fifths carries itself
    assert told({"a": scored(filled, filled)}, "carried") == []
    assert told({"a": scored(truth, truth, "kits23")}, "carried") == []  # counts no true negatives


def test_patients_seen_in_training() -> None:
    scores = {name: scored(kidney(), kidney(), "nnunet") for name in ("a1", "a2", "b1")}
    assert told(scores, "shared_patients") == []
    assert told(scores, "shared_patients", trained_on=["c"]) == []
    assert told(scores, "shared_patients", trained_on=["b1", "c"])[0]["cases"] == ["b1"]
    patients = {"a0": "anna", "a1": "anna", "a2": "anna", "b1": "berta"}
    assert told(scores, "shared_patients", patients, ["a0"])[0]["cases"] == ["a1", "a2"]
    assert told(scores, "shared_patients", patients, ["berta"])[0]["cases"] == ["b1"]
    assert audit(scores, KITS, trained_on=["c", "c"])["trained_on"] == 1
    assert audit(scores, KITS)["trained_on"] is None


def test_headers_that_differ() -> None:
    scores = {"a": scored(kidney(2), kidney(2), "kits23", spacing=2.0), "b": scored(kidney(2), kidney(2), "kits23")}
    found = told(scores, "headers")
    assert [x["cases"] for x in found] == [["a"]]
    assert "2x2x2 mm" in found[0]["text"]


@pytest.mark.parametrize("axis", [0, 1])
def test_predictions_made_on_a_coarser_grid(axis: int) -> None:
    rng = np.random.default_rng(0)
    truth = np.pad((rng.random((30, 20, 20)) < 0.5).astype(np.uint8), 2)
    coarse = np.repeat(np.take(truth, range(0, truth.shape[axis], 2), axis), 2, axis)
    for prediction, says in ((truth, False), (coarse, True)):
        pair, _ = make_pair(Volume(truth, np.eye(4)), Volume(prediction, np.eye(4)), same_grid=True)
        assert (f"across axis {axis}" in resampled(pair)) is says
    # what is straight in the truth too says nothing
    pair, _ = make_pair(Volume(coarse, np.eye(4)), Volume(coarse, np.eye(4)), same_grid=True)
    assert resampled(pair) == ""
    assert told({"a": scored(truth, coarse)}, "resampled")[0]["text"].startswith("1 of 1 cases (a): the prediction")


def test_nothing_scored() -> None:
    assert audit({}, KITS) == {"findings": [], "mean_iou": {}, "claims": [], "trained_on": None}
