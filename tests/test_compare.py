"""Evaluations against each other."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilum.errors import DatasetError, InputError, UsageError
from hilum.judge.compare import better, compare

REGIONS = ("kidney_and_mass", "mass", "tumor")


def evaluation(folder: Path, gain: float = 0.0, *, cases: int = 20, **changes: Any) -> Path:
    """A scores.json of KiTS23's form, better than others by ``gain``."""
    rng = np.random.default_rng(5)
    scores: dict[str, Any] = {"format": 1, "protocol": "kits23", "empty_policy": "both empty is 1.", "scheme": "kits"}
    scores["cases"] = {
        f"case_{i}": {
            region: {metric: 0.8 + 0.1 * rng.random() + gain * rng.random() for metric in ("dice", "surface_dice")}
            for region in REGIONS
        }
        for i in range(cases)
    }
    scores["failures"] = {}
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(scores | changes))
    return folder


def test_a_better_method_is_found(tmp_path: Path) -> None:
    folders = [evaluation(tmp_path / "old"), evaluation(tmp_path / "new", 0.05)]
    answer = compare(folders, tmp_path / "out", {"dice": 0.01})
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == answer
    rows = {(row["region"], row["metric"]): row for row in answer["comparisons"]}
    assert len(rows) == 6
    row = rows["tumor", "dice"]
    assert (row["first"], row["second"], row["better"], row["n"]) == ("old", "new", "new", 20)
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["difference"] == pytest.approx(row["second_mean"] - row["first_mean"])
    assert row["p"] < row["p_holm"] < 0.01
    assert row["rank_biserial"] == 1.0
    assert row["non_inferior"] is True
    assert [s["team"] for s in answer["ranking"]] == ["new", "old"]
    assert "Holm" in answer["methods"]
    assert "both empty is 1" in answer["methods"]
    assert "new is better" in answer["text"]
    table = list(csv.DictReader(io.StringIO((tmp_path / "out" / "comparison.csv").read_text())))
    assert float(table[0]["difference"]) == answer["comparisons"][0]["difference"]


def test_equal_methods_are_not_told_apart(tmp_path: Path) -> None:
    folders = [evaluation(tmp_path / "a" / "scores"), evaluation(tmp_path / "b" / "scores")]
    answer = compare(folders, tmp_path / "out")
    assert [e["name"] for e in answer["evaluations"]] == ["a/scores", "b/scores"]
    assert all(row["p"] == 1 and row["better"] == "" and row["difference"] == 0 for row in answer["comparisons"])
    assert "no difference shown" in answer["text"]


def test_three_methods_are_corrected_together(tmp_path: Path) -> None:
    folders = [evaluation(tmp_path / name, gain) for name, gain in (("a", 0.0), ("b", 0.01), ("c", 0.02))]
    rows = compare(folders, tmp_path / "out")["comparisons"]
    assert [(r["first"], r["second"]) for r in rows if (r["region"], r["metric"]) == ("tumor", "dice")] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    smallest = min((r for r in rows if r["metric"] == "dice"), key=lambda r: r["p"])
    assert smallest["p_holm"] == pytest.approx(smallest["p"] * 9)


def test_only_common_cases_are_compared_and_undefined_ones_left_out(tmp_path: Path) -> None:
    short = evaluation(tmp_path / "short", 0.02, cases=12)
    scores = json.loads((short / "scores.json").read_text())
    scores["cases"]["case_3"]["tumor"]["dice"] = None
    (short / "scores.json").write_text(json.dumps(scores | {"failures": {"case_19": "damaged"}, "protocol": "plain"}))
    long = evaluation(tmp_path / "long", protocol="plain")
    answer = compare([short, long], tmp_path / "out")
    assert len(answer["cases"]) == 12
    assert next(r for r in answer["comparisons"] if (r["region"], r["metric"]) == ("tumor", "dice"))["n"] == 11
    assert any("8 cases that others lack" in text for text in answer["warnings"])
    assert any("1 cases could not be scored" in text for text in answer["warnings"])


def test_scans_of_a_patient_count_once(tmp_path: Path) -> None:
    patients = {f"case_{i}": f"patient_{i // 2}" for i in range(20)}
    folders = [evaluation(tmp_path / name, gain, patients=patients) for name, gain in (("a", 0.0), ("b", 0.05))]
    answer = compare(folders, tmp_path / "out")
    assert answer["patients"] == 10
    assert all(row["n"] == 10 for row in answer["comparisons"])


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        (6, r"6 patients can show no difference, however large: .* few is 0.031, 0.094 after .* over 3 tests"),
        (7, "7 patients: tests of so few can hardly show anything"),
        (10, ""),
    ],
)
def test_too_few_patients_are_told(tmp_path: Path, cases: int, told: str) -> None:
    folders = [evaluation(tmp_path / name, gain, cases=cases) for name, gain in (("a", 0.0), ("b", 0.5))]
    answer = compare(folders, tmp_path / "out")
    few = [text for text in answer["warnings"] if "patients" in text]
    assert (not few and not told) or (len(few) == 1 and re.search(told, few[0]))
    shown = {row["better"] for row in answer["comparisons"] if row["metric"] == "dice"}
    assert shown == ({""} if cases == 6 else {"b"})


def test_which_way_is_better() -> None:
    assert better("nsd_1mm") == better("lesion_sensitivity_10_20mm") == 1
    assert better("dice") == better("lesion_f1") == better("mcc") == 1
    assert better("medpy_hd95_mm") == better("voe") == better("lesions_missed") == -1
    assert (
        better("rvd")
        == better("TP")
        == better("TP_0.5")
        == better("volume_gt_ml")
        == better("surface_area_gt_mm2")
        == 0
    )


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    one = evaluation(tmp_path / "one")
    with pytest.raises(UsageError, match="two or more"):
        compare([one], tmp_path / "out")
    with pytest.raises(UsageError, match="different protocols"):
        compare([one, evaluation(tmp_path / "other", protocol="plain")], tmp_path / "out")
    with pytest.raises(UsageError, match="different schemes"):
        compare([one, evaluation(tmp_path / "scheme", scheme="lits")], tmp_path / "out")
    plain = {"protocol": "plain", "options": {"lesion_iou": 0.5}}
    two = [evaluation(tmp_path / f"iou{x}", **plain | {"options": {"lesion_iou": x}}) for x in (0.5, 0.1)]
    with pytest.raises(UsageError, match="different options"):
        compare(two, tmp_path / "out")
    with pytest.raises(DatasetError, match="in common"):
        compare([one, evaluation(tmp_path / "none", cases=0)], tmp_path / "out")
    with pytest.raises(InputError, match="no such file"):
        compare([one, tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "text.json").write_text("[1]")
    with pytest.raises(InputError, match="no scores"):
        compare([one, tmp_path / "text.json"], tmp_path / "out")
