"""The order of suspects and their places."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hilum.judge.evaluate import evaluate
from hilum.judge.suspects import rank_suspects, suspects_text, write_suspects

AFFINE = np.array([[-2.0, 0, 0, 100], [0, -1, 0, 50], [0, 0, 1, -30], [0, 0, 0, 1]])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Three cases: one right, one with a tumour that nobody labelled, one with a tumour labelled at the wrong place."""
    right = np.zeros((12, 20, 20), np.uint8)
    right[2:10, 4:16, 4:16] = 1
    right[3:6, 5:8, 5:8] = 2
    forgotten, moved = right.copy(), right.copy()
    forgotten[forgotten == 2] = 1
    moved[moved == 2] = 1
    moved[7:9, 12:15, 12:15] = 2
    for side, arrays in (("truth", (right, forgotten, moved)), ("prediction", (right, right, right))):
        (tmp_path / side).mkdir()
        for name, array in zip(("right", "forgotten", "moved"), arrays, strict=True):
            nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / side / f"{name}.nii.gz")
    return tmp_path / "truth", tmp_path / "prediction", tmp_path / "out"


def test_the_worst_case_stands_first_with_its_places(folders: tuple[Path, Path, Path]) -> None:
    scores = evaluate(folders[0], folders[1], "plain", folders[2], trained_on=["moved"])
    ranked = write_suspects(scores, folders[2])
    assert [row["case"] for row in ranked["cases"]] == ["moved", "forgotten", "right"]
    moved, forgotten, right = ranked["cases"]
    assert right["disagreement"] == 0 and right["places"] == []
    # kidney 1, mass and tumour 0, no cyst anywhere
    assert moved["disagreement"] == forgotten["disagreement"] == pytest.approx(2 / 3, abs=1e-6)
    assert moved["seen_in_training"] and not forgotten["seen_in_training"]
    invented = {"regions": ["mass", "tumor"], "what": "predicted, not labelled", "place_mm": [92.0, 44.0, -24.0]}
    assert forgotten["places"] == [invented | {"volume_ml": 0.054, "diameter_mm": 4.7}]
    assert [p["what"] for p in moved["places"]] == ["predicted, not labelled", "labelled, not predicted"]
    assert moved["places"][1]["place_mm"] == [85.0, 37.0, -17.0]
    assert moved["disputed_ml"] == pytest.approx(0.054 + 0.036)
    assert json.loads((folders[2] / "suspects.json").read_text()) == ranked
    rows = list(csv.DictReader(io.StringIO((folders[2] / "suspects.csv").read_text())))
    assert [(row["rank"], row["case"]) for row in rows] == [
        ("1", "moved"),
        ("1", "moved"),
        ("2", "forgotten"),
        ("3", "right"),
    ]
    assert rows[2]["x_mm"] == "92.0" and rows[2]["regions"] == "mass tumor" and rows[3]["what"] == ""
    text = suspects_text(ranked)
    assert "1 moved  disagreement 0.667, seen in training" in text
    assert "mass/tumor predicted, not labelled: 0.05 mL at 92, 44, -24 mm" in text
    assert text.endswith("in training.")


@pytest.mark.parametrize("protocol", ["nnunet", "kits23", "lits"])
def test_other_protocols_keep_the_same_places(folders: tuple[Path, Path, Path], protocol: str) -> None:
    scores = evaluate(folders[0], folders[1], protocol, folders[2])
    if protocol == "lits":
        assert "detected" in scores["lesions"]["right"]["lesion"]
    ranked = rank_suspects(scores)
    assert ranked["cases"][-1]["case"] == "right" and not ranked["cases"][-1]["places"]
    forgotten = next(row for row in ranked["cases"] if row["case"] == "forgotten")
    assert [(p["what"], p["place_mm"]) for p in forgotten["places"]] == [
        ("predicted, not labelled", [92.0, 44.0, -24.0])
    ]


def test_lesions_outlined_differently_and_cases_without_dice() -> None:
    found = [
        {"place_mm": [1.0, 2.0, 3.0], "volume_ml": 4.0, "diameter_mm": 19.7, "dice": dice} for dice in (0.2, 0.5, 0.9)
    ]
    scores = {
        "cases": {"a": {"tumor": {"dice": None}}, "b": {"tumor": {"dice": 0.5}}},
        "lesions": {"a": {"tumor": {"found": found, "missed": [], "invented": []}}},
    }
    ranked = rank_suspects(scores)
    assert [row["case"] for row in ranked["cases"]] == ["b", "a"]
    assert ranked["cases"][1]["disagreement"] is None
    assert [place["volume_ml"] for place in ranked["cases"][1]["places"]] == [3.2]
    assert "no Dice" in suspects_text(ranked)
