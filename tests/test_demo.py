"""The demo is the main job: a short one here, the real one with its promised scores behind ``-m slow``."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hilum.cli import main
from hilum.demo import run_demo
from hilum.errors import OutputError
from hilum.files import read_json
from hilum.model import load_model
from hilum.scans import read_scan, read_volume

SHORT = ("training.steps=3", "training.epoch_steps=2", "training.budget=''", "prepare.patch=[16,32,32]")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, run_demo(out, cases=5, device="cpu", overrides=SHORT)


def test_every_stage_leaves_its_files(short: tuple[Path, dict[str, object]]) -> None:
    out, answer = short
    scores = read_json(out / "evaluation" / "scores.json")
    assert set(scores["mean"]) == {"kidney_and_mass", "mass", "tumor"}
    assert all("dice" in metrics for metrics in scores["mean"].values())
    assert len(scores["cases"]) == 1
    case = next(iter(scores["cases"]))
    for name in ("labels.nii.gz", "measurements.json", "report.html"):
        assert (out / "results" / case / name).is_file()
    assert (out / "run" / "report.html").is_file() and (out / "evaluation" / "report.html").is_file()
    text = str(answer["text"])
    assert str(out / "evaluation" / "report.html") in text and "hilum segment" in text and "empty regions" in text


def test_labels_lie_on_the_scan_s_own_grid(short: tuple[Path, dict[str, object]]) -> None:
    out, _ = short
    for folder in (out / "results").glob("case_*"):
        scan = read_scan(out / "phantoms" / "images" / f"{folder.name}.nii.gz")
        assert read_volume(folder / "labels.nii.gz").grid.same_as(scan.grid, 1e-4)


def test_the_card_says_what_it_learnt_from(short: tuple[Path, dict[str, object]]) -> None:
    out, _ = short
    model = load_model(out / "run" / "model")
    assert "synthetic" in model.card["warning"] and model.card["recipe"] == "demo"
    held_out = set(model.card["held_out"])
    assert held_out and not held_out & set(model.card["trained_on"]["cases"])


def test_a_second_call_finds_all_done(short: tuple[Path, dict[str, object]]) -> None:
    out, _ = short
    before = (out / "run" / "model" / "weights.safetensors").stat().st_mtime_ns
    run_demo(out, cases=5, device="cpu", overrides=SHORT)
    assert (out / "run" / "model" / "weights.safetensors").stat().st_mtime_ns == before


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="holds other files"):
        run_demo(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_holds_one_demo(short: tuple[Path, dict[str, object]]) -> None:
    with pytest.raises(OutputError, match="seed 1"):
        run_demo(short[0], seed=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_keeps_its_promise(tmp_path: Path) -> None:
    """At most 4 minutes on 2 cores; held-out kidney Dice at least 0.90, tumour Dice at least 0.60."""
    begin = time.monotonic()
    assert main(["demo", "--out", str(tmp_path / "demo"), "--quiet"]) == 0
    seconds = time.monotonic() - begin
    mean = read_json(tmp_path / "demo" / "evaluation" / "scores.json")["mean"]
    assert mean["kidney_and_mass"]["dice"]["value"] >= 0.90
    assert mean["tumor"]["dice"]["value"] >= 0.60
    assert seconds <= 240
