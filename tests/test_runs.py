from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hilum.cli import main
from hilum.config import recipe_from, to_toml
from hilum.errors import InputError, UsageError
from hilum.files import read_json
from hilum.labels import SCHEMES
from hilum.phantom import write_set
from hilum.runs import mean_table, redraw, train_and_validate
from hilum.scans import read_labels, write_labels

KITS = SCHEMES["kits"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_set(folder, 4, 5, small=True)
    return folder


def short_recipe(path: Path, dataset: str = "folder"):  # type: ignore[no-untyped-def]
    return recipe_from(
        {
            "name": "short",
            "data": {"dataset": dataset, "path": str(path), "folds": 2},
            "prepare": {"spacing_mm": [6, 6, 6], "patch": [16, 16, 16], "batch": 2, "base_features": 4},
            "training": {"steps": 2, "epoch_steps": 2, "optimizer": "adamw", "learning_rate": 0.001},
        }
    )


def test_own_data_any_names_are_trained_on_and_judged(phantoms: Path, tmp_path: Path) -> None:
    """The dataset's own scheme is used: the recipe names none."""
    mine = tmp_path / "mine"
    (mine / "ct").mkdir(parents=True)
    (mine / "dataset.json").write_text('{"labels": {"background": 0, "kidney": 1, "tumour": 2, "cyst": 3}}')
    rows = ["image,label,patient"]
    for number, image in enumerate(sorted((phantoms / "images").iterdir())):
        (mine / "ct" / f"Scan No {number}.nii.gz").write_bytes(image.read_bytes())
        (mine / f"by hand {number}.nii.gz").write_bytes((phantoms / "labels" / image.name).read_bytes())
        rows.append(f"ct/Scan No {number}.nii.gz,by hand {number}.nii.gz,patient {number // 2}")
    (mine / "list.csv").write_text("\n".join(rows) + "\n")
    answer = train_and_validate(short_recipe(mine / "list.csv"), tmp_path / "run", device="cpu")
    scores = read_json(tmp_path / "run" / "validation" / "scores.json")
    assert set(scores["cases"]) == set(answer["held_out"]) and len(answer["held_out"]) == 2
    assert (tmp_path / "run" / "report.html").is_file() and "empty regions" in answer["text"]
    assert read_json(tmp_path / "run" / "model" / "model.json")["scheme"]["labels"][1]["name"] == "tumour"
    for page in (tmp_path / "run" / "report.html", tmp_path / "run" / "validation" / "report.html"):
        page.unlink()
    assert redraw(tmp_path / "run") == [tmp_path / "run" / "report.html"]
    assert redraw(tmp_path / "run" / "validation")[0].is_file()


def test_a_run_without_data_says_how_to_give_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data NAME=PATH"):
        train_and_validate(recipe_from({"name": "x"}), tmp_path)
    with pytest.raises(UsageError, match="--fold"):
        train_and_validate(short_recipe(tmp_path), tmp_path, fold="first")
    with pytest.raises(UsageError, match="is the data set itself"):
        train_and_validate(short_recipe(tmp_path), tmp_path)
    assert not list(tmp_path.iterdir())


def test_held_out_cases_that_fail_are_told_and_not_averaged(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the mean of the others was printed alone, with exit code 0."""
    from hilum.pipeline import validating

    whole, broken = validating.Predictor.prepare, []

    def prepare(predictor, scan, name=""):  # type: ignore[no-untyped-def]
        if not broken or name in broken:
            broken.append(name)
            raise InputError("went away", where=name)
        return whole(predictor, scan, name)

    monkeypatch.setattr(validating.Predictor, "prepare", prepare)
    recipe = tmp_path / "r.toml"
    recipe.write_text(to_toml(short_recipe(phantoms, "phantom")))
    words = ["train", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"]
    assert main(words) == 1
    text = capsys.readouterr().out
    assert "1 held-out cases:" in text and f"failed: {broken[0]}: {broken[0]}: went away" in text


def test_scoring_and_drawing_load_no_torch() -> None:
    code = "import sys, hilum.runs; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_evaluate_reports_scores_policy_and_failures(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = tmp_path / "predictions"
    for file in sorted((phantoms / "labels").iterdir())[:3]:
        labels = read_labels(file, KITS)
        write_labels(predictions / file.name, labels.with_array(np.where(labels.array == 3, 1, labels.array)))
    words = ["evaluate", "--truth", str(phantoms / "labels"), "--prediction", str(predictions), "--protocol", "kits23"]
    assert main([*words, "--out", str(tmp_path / "scores"), "--quiet"]) == 1  # one prediction is missing
    text = capsys.readouterr().out
    assert "dice 1.000" in text and "empty regions" in text and "failed: case_003: no prediction" in text
    (tmp_path / "seen.txt").write_text("case_001\ncase_900\n")
    more = ["--missing", "skip", "--trained-on", str(tmp_path / "seen.txt"), "--rank-suspects", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "skip"), *more]) == 0
    text = capsys.readouterr().out
    assert "audit: 1 of 3 cases (case_001) bear names that the model was trained on" in text
    assert "seen in training" in text and (tmp_path / "skip" / "suspects.csv").is_file()
    assert "bear names" in (tmp_path / "skip" / "report.html").read_text(encoding="utf-8")
    assert main(["compare", str(tmp_path / "scores"), str(tmp_path / "skip"), "--out", str(tmp_path / "c")]) == 0
    assert (tmp_path / "c" / "comparison.json").is_file()


def test_measure_and_report_work_on_anybody_s_label_maps(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "measured"
    words = ["measure", str(phantoms / "labels"), "--scheme", "kits", "--out", str(out), "--quiet"]
    assert main(words) == 0
    assert len((out / "measurements.csv").read_text().splitlines()) == 5
    assert read_json(out / "case_000" / "measurements.json")["organs"][0]["name"] == "kidney"
    (out / "case_000" / "report.html").unlink()
    assert main(["report", str(out / "case_000")]) == 0
    assert (out / "case_000" / "report.html").is_file()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.nii.gz").write_text("no")
    assert main(["measure", str(tmp_path / "bad"), "--scheme", "kits", "--out", str(out), "--quiet"]) == 1
    assert "x.nii.gz" in capsys.readouterr().out


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        redraw(tmp_path)


def test_the_terminal_s_table_shows_dice_first_with_its_interval() -> None:
    mean = {"tumor": {"TP": {"value": 5.0}, "dice": {"value": 0.8, "low": 0.7, "high": 0.9}, "iou": {"value": None}}}
    assert mean_table(mean) == "tumor            dice 0.800 (0.700 to 0.900)"
