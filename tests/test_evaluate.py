"""Folders of label maps, good and bad, to scores.json and scores.csv."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hilum.cli import main
from hilum.errors import DatasetError, UsageError
from hilum.judge.evaluate import evaluate
from hilum.judge.pairing import find_label_maps, pair_cases
from hilum.judge.scoring import ScoreOptions
from hilum.labels import SCHEMES
from hilum.progress import Progress

SHAPE = (10, 16, 16)


def labels(seed: int = 0, *, tumour: bool = True) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[2:8, 3:13, 3:13] = 1
    if tumour:
        array[3:6, 5 + seed % 3 : 9, 5:9] = 2
    return array


def write(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (2.0, 1.0, 1.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([*spacing[:3], 1.0]))
    nib.save(image, path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Four good cases: truth, prediction, out."""
    for i in range(4):
        write(tmp_path / "truth" / f"case_{i}.nii.gz", labels(i, tumour=i != 3))
        write(tmp_path / "prediction" / f"case_{i}.nii.gz", np.roll(labels(i, tumour=i != 3), i % 2, axis=1))
    return tmp_path / "truth", tmp_path / "prediction", tmp_path / "out"


def test_scores_have_the_promised_form(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    result = evaluate(truth, prediction, "plain", out)
    assert json.loads((out / "scores.json").read_text()) == result
    assert result["format"] == 1
    assert result["protocol"] == "plain"
    assert result["empty_policy"].startswith("plain")
    assert result["failures"] == {}
    assert sorted(result["cases"]) == [f"case_{i}" for i in range(4)]
    assert set(result["mean"]["tumor"]["dice"]) == {"value", "low", "high", "n"}
    dice = [result["cases"][name]["tumor"]["dice"] for name in sorted(result["cases"])]
    assert dice[3] is None
    assert "empty" in result["reasons"]["case_3/tumor/dice"]
    mean = result["mean"]["tumor"]["dice"]
    assert mean["value"] == pytest.approx(np.mean(dice[:3]))
    assert mean["n"] == 3
    assert mean["low"] <= mean["value"] <= mean["high"]
    assert result["pooled"]["tumor"]["case_specificity"]["value"] == 1.0
    assert result["volume_agreement"]["tumor"]["bias"] == 0
    assert "every voxel" in result["tn_counted_in"]
    assert any("tumor" in text and "1 of 4 cases" in text for text in result["warnings"])
    table = list(csv.DictReader(io.StringIO((out / "scores.csv").read_text())))
    row = next(r for r in table if (r["case"], r["region"], r["metric"]) == ("case_1", "tumor", "dice"))
    assert float(row["value"]) == dice[1]
    assert (
        next(r for r in table if (r["case"], r["metric"]) == ("case_3", "dice") and r["region"] == "tumor")["value"]
        == ""
    )


def test_every_null_has_a_reason(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    write(prediction / "case_0.nii.gz", np.zeros(SHAPE, np.uint8))
    for protocol in ("plain", "nnunet", "kits19", "msd"):
        result = evaluate(truth, prediction, protocol, out, scheme=None if protocol != "msd" else SCHEMES["lits"])
        for case, regions in result["cases"].items():
            for region, metrics in regions.items():
                for metric, value in metrics.items():
                    assert value is not None or result["reasons"][f"{case}/{region}/{metric}"]
        for region, metrics in result["mean"].items():
            for metric, estimate in metrics.items():
                assert estimate["value"] is not None or result["reasons"][f"mean/{region}/{metric}"]


def test_cases_in_folders_of_their_own_pair_with_files(tmp_path: Path) -> None:
    write(tmp_path / "truth" / "case_00000" / "segmentation.nii.gz", labels())
    write(tmp_path / "truth" / "case_00000" / "imaging.nii.gz", labels())
    write(tmp_path / "truth" / "case_00001.nii", labels())
    write(tmp_path / "prediction" / "case_00000.nii.gz", labels())
    write(tmp_path / "prediction" / "case_00001" / "labels.nii.gz", labels())
    (tmp_path / "prediction" / "run.json").write_text("{}")
    (tmp_path / "prediction" / "logs").mkdir()
    pairing = pair_cases(tmp_path / "truth", tmp_path / "prediction")
    assert list(pairing.pairs) == ["case_00000", "case_00001"]
    result = evaluate(tmp_path / "truth", tmp_path / "prediction", "kits23", tmp_path / "out")
    assert result["mean"]["tumor"]["dice"]["value"] == 1.0


def test_two_files_are_a_pair(tmp_path: Path) -> None:
    truth, other = write(tmp_path / "a.nii.gz", labels()), write(tmp_path / "b.nii.gz", labels())
    result = evaluate(truth, other, "kits23", tmp_path / "out")
    assert result["cases"]["a"]["tumor"]["dice"] == 1.0
    assert result["mean"]["tumor"]["dice"]["low"] is None
    assert any("one patient" in text for text in result["warnings"])


def test_missing_predictions(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    (prediction / "case_2.nii.gz").rename(prediction / "case_2b.nii.gz")
    failed = evaluate(truth, prediction, "kits23", out)
    assert "case_2b" in failed["failures"]["case_2"]
    assert len(failed["cases"]) == 3
    assert any("case_2b" in text and "without a truth" in text for text in failed["warnings"])
    skipped = evaluate(truth, prediction, "kits23", out, missing="skip")
    assert skipped["failures"] == {}
    assert any(text.startswith("case_2: no prediction; left out") for text in skipped["warnings"])
    zero = evaluate(truth, prediction, "kits23", out, missing="zero")
    assert zero["cases"]["case_2"]["tumor"] == {"dice": 0.0, "surface_dice": 0.0}
    assert zero["mean"]["tumor"]["dice"]["value"] < skipped["mean"]["tumor"]["dice"]["value"]
    with pytest.raises(UsageError, match="fail, skip or zero"):
        evaluate(truth, prediction, "kits23", out, missing="ignore")  # type: ignore[arg-type]


def test_nothing_pairs(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth, _, out = folders
    write(tmp_path / "others" / "patient7.nii.gz", labels())
    with pytest.raises(DatasetError, match=r"'case_0'.*'patient7'"):
        evaluate(truth, tmp_path / "others", "kits23", out)
    with pytest.raises(DatasetError, match="no such folder"):
        evaluate(truth, tmp_path / "nowhere", "kits23", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no label maps"):
        evaluate(tmp_path / "empty", truth, "kits23", out)
    assert not out.exists()
    write(truth / "case_0.nii", labels())
    with pytest.raises(DatasetError, match="two label maps"):
        find_label_maps(truth)


def test_bad_cases_are_named_and_the_others_go_on(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    bad: dict[str, Any] = {
        "shape": labels()[:-1],
        "four_d": np.stack([labels()] * 2, axis=-1),
        "fractions": labels().astype(np.float32) * 0.3,
        "ct": np.full(SHAPE, -1000, np.int16),
        "nan": np.full(SHAPE, np.nan, np.float32),
    }
    for name, array in bad.items():
        write(truth / f"{name}.nii.gz", labels())
        write(prediction / f"{name}.nii.gz", array)
    write(truth / "cut.nii.gz", labels())
    (prediction / "cut.nii.gz").write_bytes((truth / "cut.nii.gz").read_bytes()[:60])
    result = evaluate(truth, prediction, "plain", out)
    assert set(result["failures"]) == {*bad, "cut"}
    assert len(result["cases"]) == 4
    assert "shape" in result["failures"]["shape"]
    assert "integers" in result["failures"]["fractions"]
    assert all(str(prediction) in text for text in result["failures"].values())


def test_header_without_a_spacing(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    raw = bytearray(gzip.decompress((prediction / "case_1.nii.gz").read_bytes()))
    nan = np.float32("nan").tobytes()
    for offset in (80, 84, 88, *range(280, 328, 4)):  # pixdim and the sform's rows
        raw[offset : offset + 4] = nan
    (prediction / "case_1.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    result = evaluate(truth, prediction, "kits23", out)
    assert list(result["failures"]) == ["case_1"]


def test_another_spacing_is_a_warning_or_a_failure(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    write(prediction / "case_1.nii.gz", labels(1), spacing=(1.0, 1.0, 1.0))
    official = evaluate(truth, prediction, "kits23", out)
    assert any(text.startswith("case_1") and "1x1x1 mm" in text for text in official["warnings"])
    plain = evaluate(truth, prediction, "plain", out)
    assert "mm away" in plain["failures"]["case_1"]


def test_strange_labels_and_empty_regions_are_told(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    write(prediction / "case_0.nii.gz", np.where(labels() == 1, 7, labels()).astype(np.uint8))
    for i in range(4):
        write(truth / f"case_{i}.nii.gz", labels(tumour=False))
    result = evaluate(truth, prediction, "kits23", out)
    assert any("labels [7]" in text for text in result["warnings"])
    assert any("'tumor' is empty in the truth of all 4 cases" in text for text in result["warnings"])


def test_workers_change_nothing_and_progress_is_told(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    stream = io.StringIO()
    one = evaluate(truth, prediction, "plain", out, workers=1)
    four = evaluate(truth, prediction, "plain", out, workers=4, progress=Progress(stream=stream))
    assert one == four
    assert "Scoring 4/4" in stream.getvalue()


def test_patients_and_options(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    together = evaluate(truth, prediction, "kits23", out, patients=dict.fromkeys(map("case_{}".format, range(4)), "p"))
    assert together["mean"]["tumor"]["dice"]["low"] is None
    options = ScoreOptions(tolerances_mm=(0.25,), diameters_mm=(5.0,))
    tumour = evaluate(truth, prediction, "plain", out, options=options)["cases"]["case_1"]["tumor"]
    assert "nsd_0.25mm" in tumour
    assert "lesion_sensitivity_5mm_up" in tumour
    assert not any(math.isnan(v) for v in tumour.values() if v is not None)


def test_options_come_by_the_command_line_and_are_kept(folders: tuple[Path, Path, Path]) -> None:
    truth, prediction, out = folders
    words = ["evaluate", "--truth", str(truth), "--prediction", str(prediction), "--out", str(out), "--missing", "skip"]
    chosen = [
        "--tolerance",
        "0.5",
        "--tolerance",
        "4",
        "--lesion-iou",
        "0.1",
        "--connectivity",
        "6",
        "--lesion-bin",
        "5",
    ]
    assert main([*words, "--protocol", "plain", "--quiet", *chosen]) == 0
    scores = json.loads((out / "scores.json").read_text())
    want = {"tolerances_mm": [0.5, 4.0], "lesion_iou": 0.1, "connectivity": 6, "diameters_mm": [5.0]}
    assert scores["options"] == want
    assert {"nsd_0.5mm", "nsd_4mm"} <= scores["mean"]["tumor"].keys() and "nsd_1mm" not in scores["mean"]["tumor"]
    assert main([*words, "--protocol", "msd", "--scheme", "kits", "--quiet", *chosen[:4]]) == 0
    assert json.loads((out / "scores.json").read_text())["options"] == {"tolerances_mm": [0.5, 4.0]}


@pytest.mark.parametrize(
    ("protocol", "options", "said"),
    [
        ("kits23", {"tolerances_mm": (2.0,)}, "protocol 'kits23' decides tolerances_mm itself"),
        ("msd", {"lesion_iou": 0.1}, "decides lesion_iou itself"),
        ("nnunet", {"connectivity": 6}, "decides connectivity itself"),
        ("plain", {"tolerances_mm": (-1.0,)}, "above 0 mm"),
        ("plain", {"diameters_mm": (math.nan,)}, "above 0 mm"),
        ("plain", {"lesion_iou": 1.0}, "0 to below 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    folders: tuple[Path, Path, Path], protocol: str, options: dict[str, Any], said: str
) -> None:
    truth, prediction, out = folders
    with pytest.raises(UsageError, match=said):
        evaluate(truth, prediction, protocol, out, options=ScoreOptions(**options))
    assert not out.exists()


def test_all_cases_bad(tmp_path: Path) -> None:
    write(tmp_path / "truth" / "a.nii.gz", labels())
    write(tmp_path / "prediction" / "a.nii.gz", labels()[1:])
    result = evaluate(tmp_path / "truth", tmp_path / "prediction", "plain", tmp_path / "out")
    assert list(result["failures"]) == ["a"]
    assert result["cases"] == result["mean"] == result["pooled"] == {}
    assert (tmp_path / "out" / "scores.csv").read_text() == "case,region,metric,value\n"
