"""``training.optimizer = "auto"``: chosen by the run's length, once, and said."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from hilum.config import TrainingOptions, built_in_recipes, read_recipe
from hilum.datasets import Dataset
from hilum.errors import RecipeError
from hilum.progress import SILENT, Progress
from hilum.training import choosing
from hilum.training.checkpoint import checkpoint_facts
from hilum.training.loop import train
from hilum.training.optim import DECIDED, SHORT_STEPS, check_options, settled
from hilum.training.ranks import Ranks
from hilum.training.setup import RunSetup, set_up
from hilum.training.tracking import read_log
from hilum.training.trainer import Trainer
from making_runs import Interrupting, losses, make_cases, one_thread, recipe, same_weights

__all__ = ["one_thread"]  # a fixture that works by itself
LEFT_OPEN = {"optimizer": "auto", "learning_rate": 0.01}  # 0.01 is what a recipe that says nothing has


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_cases(tmp_path_factory.mktemp("cubes"))


def left_open(**training: Any) -> Any:
    return recipe(**LEFT_OPEN, **training)


def decided(options: TrainingOptions) -> dict[str, Any]:
    return {key: getattr(options, key) for key in DECIDED}


def test_short_runs_take_adamw_and_long_ones_learn_as_nnunet_does() -> None:
    asked = TrainingOptions(optimizer="auto")
    short, long = settled(asked, SHORT_STEPS - 1), settled(asked, SHORT_STEPS)
    assert short.optimizer == "adamw" and 0.9 < short.ema < 1 and 0 < short.warmup_steps < SHORT_STEPS / 10
    assert decided(long) == decided(read_recipe("resenc_m").training)
    for steps in (1, 10, 100, 1000):
        few = settled(asked, steps)
        assert 1 <= few.warmup_steps <= max(1, steps // 10) and 0 < few.ema <= short.ema
        check_options(few)  # nothing that is chosen is refused
    assert settled(short, 10**6) == short, "a choice is made once"


def test_only_the_default_recipe_leaves_the_choice_open() -> None:
    asked = {name: read_recipe(name).training for name in built_in_recipes()}
    assert [name for name, options in asked.items() if options.optimizer == "auto"] == ["default"]
    check_options(asked["default"])


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.02}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"warmup_steps": 5}, {"ema": 0.9}]
)
def test_what_would_be_decided_twice_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=f"(?s)training.{next(iter(change))}.*training.optimizer"):
        check_options(replace(TrainingOptions(optimizer="auto"), **change))


def test_a_run_says_and_keeps_what_it_chose(tmp_path: Path, cubes: Dataset) -> None:
    said = io.StringIO()
    train(left_open(steps=3), cubes, tmp_path / "run", device="cpu", progress=Progress(stream=said))
    chosen = settled(left_open().training, 3)
    assert "3 steps, fewer than" in said.getvalue() and "AdamW" in said.getvalue()
    for folder in ("run", "run/model"):
        assert decided(read_recipe(tmp_path / folder / "recipe.toml").training) == decided(chosen)
    assert read_log(tmp_path / "run" / "log.jsonl")[0]["facts"]["optimizer"] == decided(chosen)


def test_interrupted_it_takes_the_very_same_steps_and_extended_it_stays_what_it_is(
    tmp_path: Path, cubes: Dataset
) -> None:
    asked = left_open(steps=5, checkpoint_minutes=0.0)
    train(asked, cubes, tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(asked, cubes, tmp_path / "cut", device="cpu", progress=Interrupting(3))
    train(asked, cubes, tmp_path / "cut", device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "straight")
    assert same_weights(tmp_path / "cut", tmp_path / "straight")

    begun = checkpoint_facts(tmp_path / "cut" / "checkpoint")
    longer = replace(asked, training=replace(asked.training, steps=7))
    assert train(longer, cubes, tmp_path / "cut", device="cpu").steps == 7
    now = checkpoint_facts(tmp_path / "cut" / "checkpoint")
    assert begun is not None and now is not None
    for key in DECIDED:
        assert now["recipe"]["training"][key] == begun["recipe"]["training"][key], key
    with pytest.raises(RecipeError, match="begun differently"):
        train(recipe(steps=7, optimizer="sgd"), cubes, tmp_path / "cut", device="cpu")


@pytest.mark.parametrize(("seconds", "wanted"), [(0.001, "SGD"), (1.0, "AdamW")])
def test_a_budget_of_time_holds_as_many_steps_as_were_timed(
    monkeypatch: pytest.MonkeyPatch, seconds: float, wanted: str
) -> None:
    monkeypatch.setattr(choosing, "_step_seconds", lambda *_: seconds)
    said, setup = io.StringIO(), cast(RunSetup, None)
    asked = left_open(steps=250_000, budget="20s")
    made = choosing.choose(asked, setup, torch.device("cpu"), Ranks(), Progress(stream=said))
    assert made.training == settled(asked.training, round(20 / seconds))
    assert f"about {20 / seconds:.0f} steps fit in 20s" in said.getvalue() and wanted in said.getvalue()


def test_timing_steps_leaves_no_trace(tmp_path: Path, cubes: Dataset) -> None:
    """The same steps whether some were timed before or not."""
    train(left_open(steps=4, schedule="constant", budget="1h"), cubes, tmp_path / "timed", device="cpu")
    train(left_open(steps=4, schedule="constant"), cubes, tmp_path / "untimed", device="cpu")
    assert losses(tmp_path / "timed") == losses(tmp_path / "untimed")


def test_few_steps_are_timed_and_slow_ones_once(
    tmp_path: Path, cubes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(Trainer, "learn", lambda *_: taken.append(1))
    setup = set_up(left_open(), cubes, tmp_path / "run", 0, 1, SILENT)
    for budget, count in ((1e6, 5), (1e-6, 1)):
        assert choosing._step_seconds(left_open(), setup, torch.device("cpu"), budget) > 0
        assert len(taken) == count
        taken.clear()
