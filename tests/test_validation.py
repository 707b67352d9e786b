"""True scores during training: whole scans on their own grids, the best weights, and when it is enough."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch

from hilum.config import recipe_from
from hilum.datasets import Dataset
from hilum.judge.evaluate import evaluate
from hilum.model import load_model
from hilum.pipeline import predict_cases
from hilum.training.best import Best
from hilum.training.loop import train
from hilum.training.tracking import read_log
from hilum.training.validation import CaseValidation, TrueScore
from making_runs import Interrupting, losses, make_cases, one_thread, recipe, same_weights

__all__ = ["one_thread"]  # a fixture that works by itself


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_cases(tmp_path_factory.mktemp("cubes"), 4)


def true_scores(out: Path) -> list[dict[str, Any]]:
    return [line["true_dice"] for line in read_log(out / "log.jsonl") if line.get("true_dice")]


def test_the_true_dice_is_that_of_the_evaluation(tmp_path: Path, cubes: Dataset) -> None:
    asked = recipe(steps=30, epoch_steps=15, learning_rate=0.02, keep="best", validation_cases=9)
    result = train(asked, cubes, tmp_path / "run", device="cpu")
    found = true_scores(tmp_path / "run")
    assert len(found) == 2 and found[-1]["cases"] == list(result.held_out)
    best = max(found, key=lambda score: sum(score["dice"].values()))
    held_out = [case for case in cubes.cases if case.name in result.held_out]
    predicted = predict_cases(result.model, held_out, tmp_path / "v", device="cpu")
    scores = evaluate(predicted.truth, predicted.predictions, "plain", tmp_path / "e", scheme=asked.scheme)
    for region, value in best["dice"].items():  # fp32 in training, the processor's own precision in inference
        assert scores["mean"][region]["dice"]["value"] == pytest.approx(value, abs=0.01), region
    assert best["dice"]["liver"] > 0.5
    assert "best mean true Dice" in load_model(result.model).card["weights"]


def test_a_look_takes_its_share_of_the_time_and_no_more(tmp_path: Path, cubes: Dataset) -> None:
    train(recipe(steps=4, validation_share=0.0), cubes, tmp_path / "never", device="cpu")
    assert true_scores(tmp_path / "never") == []
    train(recipe(steps=4, validation_share=0.99), cubes, tmp_path / "often", device="cpu")
    found = true_scores(tmp_path / "often")
    assert 1 <= len(found) <= 3 and all(score["cases"] == found[0]["cases"] for score in found)
    # looking draws no random number: the steps are the very same
    assert losses(tmp_path / "never") == losses(tmp_path / "often")
    assert same_weights(tmp_path / "never", tmp_path / "often")


def test_when_a_look_is_due(tmp_path: Path) -> None:
    look = object.__new__(CaseValidation)
    look.cases, look.share, look.spent, look.last = ("case",), 0.05, 3.0, 2.0  # type: ignore[assignment]
    assert not look.is_due(99.0, 1.0) and look.is_due(100.0, 1.0)  # 5 s of 100
    look.share = 0.0
    assert not look.is_due(1e9, 1.0)


def test_patience_ends_a_run_and_the_best_weights_are_the_model(
    tmp_path: Path, cubes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = chain([0.2, 0.6, 0.5, 0.4, 0.9], repeat(0.1))
    seen: list[dict[str, torch.Tensor]] = []

    def score(self: CaseValidation, weights: dict[str, torch.Tensor]) -> TrueScore:
        seen.append({key: value.detach().clone() for key, value in weights.items()})
        return TrueScore({"liver": next(marks)}, ("case0",), 0.1)

    monkeypatch.setattr(CaseValidation, "score", score)
    asked = recipe(steps=50, patience=2, keep="best", checkpoint_minutes=0.0)
    result = train(asked, cubes, tmp_path / "run", device="cpu")
    assert result.steps == 4  # 0.6 at the second, then twice nothing better
    model = load_model(result.model)
    assert all(torch.equal(value, seen[1][key]) for key, value in model.weights[0].items())
    assert model.card["weights"].startswith("of step 2, best mean true Dice 0.6000")
    assert [file.name for file in (tmp_path / "run" / "best").iterdir()] == ["2.safetensors"]
    assert train(asked, cubes, tmp_path / "run", device="cpu").was_finished
    more = replace(asked, training=replace(asked.training, patience=3))
    assert train(more, cubes, tmp_path / "run", device="cpu").steps == 8  # 0.9 at the fifth


def test_the_best_survives_an_interruption(tmp_path: Path, cubes: Dataset) -> None:
    asked = recipe(steps=8, keep="best", checkpoint_minutes=0.0)
    train(asked, cubes, tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(asked, cubes, tmp_path / "cut", device="cpu", progress=Interrupting(5))
    train(asked, cubes, tmp_path / "cut", device="cpu")
    assert same_weights(tmp_path / "cut", tmp_path / "straight")
    dice = [[score["dice"] for score in true_scores(tmp_path / name)] for name in ("straight", "cut")]
    assert dice[0] == dice[1] and len(dice[0]) == 8


def test_without_being_asked_it_keeps_nothing(tmp_path: Path) -> None:
    best = Best(tmp_path / "best", recipe_from({"labels": "kits"}).training)
    best.take(0.9, 1, {"w": torch.ones(1)})
    assert not best.wants_scores and not best.is_enough and best.weights() is None
    assert best.describe(7) == "of the last step, 7" and not (tmp_path / "best").exists()
