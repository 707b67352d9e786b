"""A true study, small: two networks of a few steps on synthetic CT, and one trial repeated by ``hilum train``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from hilum.cli import main
from hilum.errors import InputError
from hilum.files import read_json, write_json
from hilum.phantom import write_set
from hilum.runs import redraw

TABLE = """
name = "small"
recipe = "demo"
data = "phantom={data}"
folds = [0]
steps = 2
[settings]
"data.folds" = 2
"prepare.spacing_mm" = [20, 12, 12]
"prepare.patch" = [16, 16, 16]
"prepare.batch" = 1
"prepare.base_features" = 4
"training.epoch_steps" = 2
"training.validation_cases" = 0
[arms.planned]
[arms.unet.network]
name = "unet"
options = {{ width = 4, stages = 2 }}
[tune]
trials = 1
folds = [0]
region = "kidney_and_mass"
[tune.space]
"training.learning_rate" = {{ low = 1e-4, high = 1e-2, log = true }}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that ran to its end by the command line."""
    folder = tmp_path_factory.mktemp("study")
    write_set(folder / "phantoms", 4, 5, shape=(16, 32, 32), spacing_mm=(20, 12, 12), workers=1)
    (folder / "small.toml").write_text(TABLE.format(data=folder / "phantoms"))
    words = ["study", str(folder / "small.toml"), "--out", str(folder / "out"), "--device", "cpu"]
    assert main([*words, "--dry-run", "--quiet"]) == 0
    assert not (folder / "out").exists()
    assert main([*words, "--quiet", "--debug"]) == 0
    return folder


def test_every_arm_is_judged_on_the_same_cases_by_one_evaluator(done: Path) -> None:
    found = read_json(done / "out" / "study.json")
    assert [row["arm"] for row in found["arms"]] == ["planned", "unet"]
    for row in found["arms"]:
        scores = read_json(done / "out" / "evaluations" / "phantom" / row["arm"] / "scores.json")
        assert len(scores["cases"]) == row["cases"] == 2 and scores["mean"] == row["mean"]
        assert row["steps"] == [2] and row["parameters"] > 1000 and row["segment_seconds"] > 0
        assert 0 < row["start_memory_gb"] <= row["memory_gb"] <= row["peak_memory_gb"]
        assert row["train_seconds_least"] <= row["train_seconds"] <= row["train_seconds_most"]
    folds = {
        (done / "out" / "runs" / "phantom" / arm / "fold_0" / "folds.json").read_text() for arm in ("planned", "unet")
    }
    assert len(folds) == 1
    equal = {one["what"]: one["equal"] for one in found["conditions"]["phantom"]}
    assert all(
        equal[what] for what in ("Folds", "Cases", "Evaluator", "Budget", "Seed", "Patches", "Precision", "Machine")
    )
    compared = found["comparisons"]["phantom"]
    assert {(row["first"], row["second"]) for row in compared["comparisons"]} == {("planned", "unet")}
    rows = (done / "out" / "study.csv").read_text().splitlines()
    assert rows[0].startswith("data,arm,network,parameters") and any(
        row.startswith("phantom,unet,unet,") for row in rows
    )


def test_cases_are_measured_once(done: Path) -> None:
    for arm in ("planned", "unet"):
        run = done / "out" / "runs" / "phantom" / arm / "fold_0" / "validation"
        assert len(list((run / "measured").glob("*.npz"))) == 2
        assert not (done / "out" / "evaluations" / "phantom" / arm / "measured").exists()  # nothing was left to measure


def test_cases_are_prepared_once(done: Path) -> None:
    runs = done / "out" / "runs" / "phantom"
    stores = {(runs / arm / "fold_0" / "prepared").resolve() for arm in ("planned", "unet")}
    assert len(stores) == 1 and next(iter(stores)).is_dir()


def test_the_page_shows_scores_against_costs_and_says_what_was_equal(done: Path) -> None:
    page = (done / "out" / "report.html").read_text(encoding="utf-8")
    for text in (
        "against training time of a run (s)",
        "against peak memory",
        "against parameters",
        "Were the conditions",
    ):
        assert text in page
    assert "not a medical device" in page and "evaluations/phantom/unet/report.html" in page
    assert (
        "comparison/phantom/report.html" in page and "<script src" not in page and "http" not in page.split("<svg")[0]
    )
    for name in ("phantom_kidney_and_mass_train_seconds", "phantom_loss"):
        assert (done / "out" / "figures" / f"{name}.svg").is_file()
        assert (done / "out" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    (done / "out" / "report.html").unlink()
    assert redraw(done / "out") == [done / "out" / "report.html"]
    assert (done / "out" / "report.html").read_text(encoding="utf-8") == page


def test_a_finished_study_runs_nothing_again(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [done / "out" / "runs" / "phantom" / arm / "fold_0" / "worker.log" for arm in ("planned", "unet")]
    files.append(done / "out" / "evaluations" / "phantom" / "unet" / "scores.json")
    before = [file.stat().st_mtime_ns for file in files]
    words = ["study", str(done / "small.toml"), "--out", str(done / "out"), "--device", "cpu", "--quiet", "--json"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert answer["exit_code"] == 0 and answer["tune"]["best"]["number"] == 0
    assert main([*words[:-1], "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "2 runs (2 done already)" in text and "1 finished run" in text and "then 1 trials" in text


def test_a_trial_s_recipe_alone_gives_the_same_model(done: Path) -> None:
    trial = done / "out" / "tune" / "trial_0000"
    words = ["train", str(trial / "recipe.toml"), "--out", str(done / "again"), "--fold", "0", "--device", "cpu"]
    assert main([*words, "--quiet"]) == 0
    first, second = (load_file(f / "model" / "weights.safetensors") for f in (trial / "fold_0", done / "again"))
    assert first.keys() == second.keys() and all((first[key] == second[key]).all() for key in first)
    one, two = (read_json(f / "validation" / "scores.json")["mean"] for f in (trial / "fold_0", done / "again"))
    assert one == two


def test_what_is_no_study_is_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "study.json", {"arms": []})
    with pytest.raises(InputError, match="is no study"):
        redraw(tmp_path)
    assert main(["study"]) == 2 and "no STUDY" in capsys.readouterr().err
    assert main(["study", "phantom_networks"]) == 2 and "no --out" in capsys.readouterr().err
    assert main(["study", "--list", "--json"]) == 0
    assert "five_networks" in json.loads(capsys.readouterr().out)
