from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from hilum.config import DataOptions, InferenceOptions, PatchOptions, PrepareOptions
from hilum.datasets import Dataset
from hilum.errors import DatasetError, OutputError, RecipeError, TrainingError, UsageError
from hilum.labels import SCHEMES
from hilum.model import load_model
from hilum.training import run as runs
from hilum.training.checkpoint import checkpoint_facts, load_checkpoint, remove_checkpoint
from hilum.training.loop import train
from hilum.training.stopping import StopSignals
from hilum.training.tracking import read_log
from hilum.training.trainer import Trainer
from making_runs import Interrupting, losses, make_cases, one_thread, recipe, same_weights

__all__ = ["one_thread"]  # a fixture that works by itself


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_cases(tmp_path_factory.mktemp("cubes"))


def test_a_run_writes_what_it_promises(tmp_path: Path, cubes: Dataset) -> None:
    result = train(recipe(steps=5, epoch_steps=2, ema=0.9), cubes, tmp_path / "run", device="cpu", commit="abc")
    assert {item.name for item in (tmp_path / "run").iterdir()} == {
        "checkpoint",
        "fingerprint.json",
        "folds.json",
        "log.jsonl",
        "model",
        "plan.json",
        "prepared",
        "recipe.toml",
    }
    first, *lines = [json.loads(text) for text in result.log.read_text().splitlines()]
    assert set(first["facts"]) >= {"hilum", "torch", "device", "precision", "training", "held_out", "parameters"}
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 2), (2, 4), (3, 5)]
    for line in lines:
        assert 0 <= line["data_wait"] <= 1 and line["patches_per_second"] > 0 and line["peak_memory_gb"] > 0
        assert set(line["patch_dice"]) == {"liver", "tumour"} and line["time_left_s"] >= 0 and line["loss"] > 0
    assert len(result.held_out) == 1 and result.held_out[0] not in first["facts"]["training"]
    model = load_model(result.model)
    assert model.card["commit"] == "abc" and model.card["held_out"] == list(result.held_out)
    assert "not a medical device" in model.card["warning"]
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert checkpoint is not None  # the averaged weights are the model's
    assert all(torch.equal(model.weights[0][key], x) for key, x in checkpoint.group("ema").items())
    assert not all(torch.equal(model.weights[0][key], x) for key, x in checkpoint.group("model").items())


def test_it_learns(tmp_path: Path, cubes: Dataset) -> None:
    train(recipe(steps=40, epoch_steps=20, learning_rate=0.02), cubes, tmp_path / "run", device="cpu")
    last = read_log(tmp_path / "run" / "log.jsonl")[-1]
    assert last["loss"] < 0.7 * losses(tmp_path / "run")[0]
    assert last["patch_dice"]["liver"] > 0.7


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "optimizer": "sgd", "momentum": 0.9, "schedule": "cosine"}])
def test_an_interrupted_run_takes_the_very_same_steps(tmp_path: Path, cubes: Dataset, options: dict[str, Any]) -> None:
    asked = recipe(steps=10, checkpoint_minutes=0.0, **options)
    train(asked, cubes, tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):  # as a kill would: nothing is saved on the way out but what was
        train(asked, cubes, tmp_path / "cut", device="cpu", progress=Interrupting(6))
    facts = checkpoint_facts(tmp_path / "cut" / "checkpoint")
    assert facts is not None and facts["step"] == 5
    assert not (tmp_path / "cut" / "model").exists()
    train(asked, cubes, tmp_path / "cut", device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "straight")
    assert len(losses(tmp_path / "cut")) == 10
    assert same_weights(tmp_path / "cut", tmp_path / "straight")


def test_an_epoch_that_was_cut_is_logged_as_if_it_had_not_been(tmp_path: Path, cubes: Dataset) -> None:
    asked = recipe(steps=6, epoch_steps=4, checkpoint_minutes=0.0)
    train(asked, cubes, tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(asked, cubes, tmp_path / "cut", device="cpu", progress=Interrupting(3))
    train(asked, cubes, tmp_path / "cut", device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "straight")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_saves(tmp_path: Path, cubes: Dataset, number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(TrainingError, match=r"stopped by SIG\w+ after step 3 of 6.*run the same command again"):
        train(recipe(), cubes, tmp_path / "run", device="cpu", progress=Interrupting(3, number))
    assert signal.getsignal(number) is before
    facts = checkpoint_facts(tmp_path / "run" / "checkpoint")
    assert facts is not None and facts["step"] == 3
    assert train(recipe(), cubes, tmp_path / "run", device="cpu").steps == 6


def test_a_second_signal_acts_as_ever() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked == "SIGINT"
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_finished_run_is_returned_and_a_longer_one_goes_on(tmp_path: Path, cubes: Dataset) -> None:
    out = tmp_path / "run"
    first = train(recipe(steps=3), cubes, out, device="cpu")
    stamp = (out / "model" / "weights.safetensors").stat().st_mtime_ns
    again = train(replace(recipe(steps=3), name="other", description="said otherwise"), cubes, out, device="cpu")
    assert again.was_finished and not first.was_finished and again.steps == 3 and again.held_out == first.held_out
    assert (out / "model" / "weights.safetensors").stat().st_mtime_ns == stamp
    longer = train(recipe(steps=5), cubes, out, device="cpu")
    assert (longer.steps, longer.was_finished) == (5, False) and longer.seconds > first.seconds
    assert len(losses(out)) == 5 and load_model(out).card["steps"] == 5
    anew = train(recipe(steps=2), cubes, out, device="cpu", resume=False)
    assert anew.steps == 2 and len(losses(out)) == 2


def test_another_recipe_or_fold_is_refused(tmp_path: Path, cubes: Dataset) -> None:
    out = tmp_path / "run"
    train(recipe(steps=2), cubes, out, device="cpu")
    with pytest.raises(RecipeError, match=r"training.learning_rate was 0.01 and is 0.5.*--restart"):
        train(recipe(steps=2, learning_rate=0.5), cubes, out, device="cpu")
    with pytest.raises(RecipeError, match="fold was '0' and is '1'"):
        train(recipe(steps=2), cubes, out, fold=1, device="cpu")
    with pytest.raises(RecipeError, match="other cases"):
        more = Dataset("cubes", make_cases(tmp_path / "more", 4).cases, SCHEMES["lits"])
        train(recipe(steps=3), more, out, device="cpu")


def test_a_plan_of_other_wishes_is_not_reused(tmp_path: Path, cubes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fell over before its first checkpoint leaves a plan behind."""

    def fall(*_: object) -> None:
        raise TrainingError("fell over")

    monkeypatch.setattr(Trainer, "learn", fall)
    for features in (4, 6):
        asked = recipe(steps=2)
        asked = replace(asked, prepare=replace(asked.prepare, base_features=features))
        with pytest.raises(TrainingError, match="fell over"):
            train(asked, cubes, tmp_path / "run", device="cpu")
        assert json.loads((tmp_path / "run" / "plan.json").read_text())["features"][0] == features


def test_a_plan_of_files_that_changed_since_is_not_reused_unless_the_run_has_begun(tmp_path: Path) -> None:
    dataset = make_cases(tmp_path / "cases")

    def lightest(folder: str, steps: int) -> float:
        train(recipe(steps=steps), dataset, tmp_path / folder, device="cpu")
        return float(json.loads((tmp_path / folder / "plan.json").read_text())["normalisation"]["low"])

    before = [lightest("begun", 1), lightest("fell", 1)]
    remove_checkpoint(tmp_path / "fell" / "checkpoint")  # as if it had fallen over before its first one
    for case in dataset.cases:
        image = nibabel.load(case.image)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.int16) - 20, image.affine), case.image)
    assert lightest("begun", 2) == before[0]
    assert lightest("fell", 1) == before[1] - 20


def test_folds_are_even_in_lesions_if_wanted(tmp_path: Path) -> None:
    """Two cases of four have no tumour: each of two folds holds out one of them, whatever the seed."""
    dataset = make_cases(tmp_path / "cases", 4)
    for case in dataset.cases[:2]:
        image = nibabel.load(case.labels)
        healthy = np.minimum(np.asarray(image.dataobj), 1).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(healthy, image.affine), case.labels)
    healthy_held_out = []
    for seed in range(4):
        options = DataOptions("folder", folds=2, seed=seed, stratify=True)
        result = train(replace(recipe(steps=1), data=options), dataset, tmp_path / f"{seed}", device="cpu")
        healthy_held_out.append(len({"case0", "case1"} & set(result.held_out)))
    assert healthy_held_out == [1, 1, 1, 1]


def test_fold_all_trains_on_every_case(tmp_path: Path, cubes: Dataset) -> None:
    result = train(recipe(steps=1), cubes, tmp_path / "run", fold="all", device="cpu")
    first, line = read_log(result.log)
    assert result.held_out == () and len(first["facts"]["training"]) == 3 and line["patch_dice"] is None


def test_two_dimensions(tmp_path: Path, cubes: Dataset) -> None:
    asked = recipe(steps=2)
    asked = replace(asked, prepare=replace(asked.prepare, dims=2, patch=(16, 16), spacing_mm=(1.0, 1.0)))
    result = train(asked, cubes, tmp_path / "run", device="cpu")
    assert load_model(result.model).spec.dims == 2


def test_a_budget_is_kept(tmp_path: Path, cubes: Dataset) -> None:
    begin = time.monotonic()
    result = train(recipe(steps=100_000, budget="3s", epoch_steps=10_000), cubes, tmp_path / "run", device="cpu")
    assert result.seconds <= 5 and time.monotonic() - begin < 60
    last = read_log(result.log)[-1]
    assert 0 < result.steps < 100_000 and last["step"] == result.steps and last["patch_dice"] is not None
    assert last["learning_rate"] < 0.5 * 0.01  # the schedule ran on the clock
    assert train(recipe(steps=100_000, budget="3s", epoch_steps=10_000), cubes, tmp_path / "run").was_finished
    longer = train(recipe(steps=100_000, budget="4s", epoch_steps=10_000), cubes, tmp_path / "run", device="cpu")
    assert longer.steps > result.steps and longer.seconds <= 6


def test_nan_names_the_step_and_the_cases(tmp_path: Path, cubes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Trainer._forward

    def bad(self: Trainer, batch: Any) -> torch.Tensor:
        return good(self, batch) * (float("nan") if self.step == 3 else 1.0)

    monkeypatch.setattr(Trainer, "_forward", bad)
    with pytest.raises(
        TrainingError, match=r"the loss is nan at step 4, in patches of case\d.*last checkpoint is kept"
    ):
        train(recipe(checkpoint_minutes=0.0), cubes, tmp_path / "run", device="cpu")
    facts = checkpoint_facts(tmp_path / "run" / "checkpoint")
    assert facts is not None and facts["step"] == 3


def test_a_full_disk_is_said_and_the_checkpoint_kept(
    tmp_path: Path, cubes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = runs.save_checkpoint

    def full_at_the_third(folder: Path, network: Any, optimizer: Any, ema: Any, facts: Any) -> None:
        if facts["step"] == 3:
            raise OutputError("the disk is full", where=folder)
        good(folder, network, optimizer, ema, facts)

    monkeypatch.setattr(runs, "save_checkpoint", full_at_the_third)
    with pytest.raises(OutputError, match="disk is full"):
        train(recipe(checkpoint_minutes=0.0), cubes, tmp_path / "run", device="cpu")
    facts = checkpoint_facts(tmp_path / "run" / "checkpoint")
    assert facts is not None and facts["step"] == 2


def test_what_cannot_be_trained_is_refused_before_the_first_step(tmp_path: Path, cubes: Dataset) -> None:
    with pytest.raises(UsageError, match=r"fold '7'|fold 7"):
        train(recipe(), cubes, tmp_path / "a", fold=7, device="cpu")
    with pytest.raises(RecipeError, match="no loss"):
        train(recipe(loss="nonsense"), cubes, tmp_path / "b", device="cpu")
    with pytest.raises(RecipeError, match="at least 1"):
        train(recipe(steps=0), cubes, tmp_path / "c", device="cpu")
    with pytest.raises(RecipeError, match="learning_rate: inf"):
        train(recipe(learning_rate=float("inf")), cubes, tmp_path / "c", device="cpu")
    unlabelled = Dataset("scans", tuple(replace(case, labels=None) for case in cubes.cases), None)
    with pytest.raises(DatasetError, match="no case has labels"):
        train(recipe(), unlabelled, tmp_path / "d", device="cpu")
    wide = replace(recipe(), network=replace(recipe().network, options={"strides": [[1, 1, 1], [8, 8, 8], [8, 8, 8]]}))
    with pytest.raises(RecipeError, match=r"divides by 64|one of each for every stage"):
        train(wide, cubes, tmp_path / "e", device="cpu")


@pytest.mark.parametrize(
    ("section", "found"),
    [
        ({"postprocess": ({"step": "polish"},)}, "post-processing step 'polish'"),
        ({"inference": InferenceOptions(overlap=1.5)}, "overlap 1.5"),
        ({"patches": PatchOptions(foreground=3.0)}, "patches.foreground = 3.0"),
        ({"prepare": PrepareOptions(memory_gb=-1.0)}, "prepare.memory_gb = -1.0"),
    ],
)
def test_what_is_wanted_after_training_is_checked_before_any_scan_is_read(
    tmp_path: Path, cubes: Dataset, section: dict[str, Any], found: str
) -> None:
    with pytest.raises((RecipeError, UsageError), match=found):
        train(replace(recipe(), **section), cubes, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_takes_other_post_processing_without_a_step_more(tmp_path: Path, cubes: Dataset) -> None:
    out, first = tmp_path / "run", recipe(steps=2)
    train(first, cubes, out, device="cpu")
    before = load_model(out)
    other = replace(first, postprocess=({"step": "keep_largest"},), inference=InferenceOptions(overlap=0.25))
    again = train(other, cubes, out, device="cpu")
    after = load_model(out)
    assert (again.steps, len(losses(out))) == (2, 2) and before.postprocess == ()
    assert after.postprocess == ({"step": "keep_largest"},) and after.inference.overlap == 0.25
    assert all(torch.equal(tensor, after.weights[0][key]) for key, tensor in before.weights[0].items())
    assert train(other, cubes, out, device="cpu").was_finished


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import test_loop as tests
    from hilum import device
    device.cpu_count = lambda *_: 1
    asked = tests.recipe(steps=12, checkpoint_minutes=0.0)
    tests.train(asked, tests.make_cases(Path(sys.argv[2])), Path(sys.argv[3]), device="cpu")
"""


def test_kill_minus_nine_and_again(tmp_path: Path) -> None:
    asked = recipe(steps=12, checkpoint_minutes=0.0)
    dataset, out = make_cases(tmp_path / "data"), tmp_path / "run"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(Path(__file__).parent), str(tmp_path / "data"), out]
    with subprocess.Popen([str(part) for part in command]) as process:
        while process.poll() is None:
            if len(losses(out)) >= 3:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
    train(asked, dataset, out, device="cpu")
    train(asked, dataset, tmp_path / "straight", device="cpu")
    assert losses(out) == losses(tmp_path / "straight") and same_weights(out, tmp_path / "straight")


def test_bf16_learns_with_fp32_weights(tmp_path: Path, cubes: Dataset) -> None:
    for precision in ("bf16", "fp32"):
        train(recipe(steps=24, epoch_steps=12, precision=precision), cubes, tmp_path / precision, device="cpu")
    short, full = losses(tmp_path / "bf16"), losses(tmp_path / "fp32")
    assert short != full and short[-1] == pytest.approx(full[-1], rel=0.25)
    checkpoint = load_checkpoint(tmp_path / "bf16" / "checkpoint")
    assert checkpoint is not None and {x.dtype for x in checkpoint.tensors.values()} == {torch.float32}
