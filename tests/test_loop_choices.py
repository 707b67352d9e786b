"""Whole runs of other networks and losses than the default ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hilum.config import NetworkOptions, read_recipe, to_toml
from hilum.datasets import Dataset
from hilum.errors import RecipeError
from hilum.labels import SCHEMES
from hilum.model import load_model
from hilum.progress import SILENT
from hilum.training.loop import train
from hilum.training.losses import inverse_frequencies
from hilum.training.setup import set_up
from making_runs import Interrupting, losses, make_cases, one_thread, recipe, same_weights

__all__ = ["one_thread"]  # a fixture that works by itself
SUM = {"terms": {"weighted_ce": 0.5, "batch_dice": 1.0, "boundary": 0.01}}


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_cases(tmp_path_factory.mktemp("cubes"))


def with_unet(options: dict[str, Any], **training: Any) -> Any:
    return replace(recipe(**training), network=NetworkOptions("unet", options))


def test_class_counts_are_those_of_the_cases_to_learn_from(tmp_path: Path, cubes: Dataset) -> None:
    setup = set_up(recipe(), cubes, tmp_path / "run", 0, 1, SILENT)
    # each of the two cases: a cube of 12 with one of 5 inside it, in a block of 24
    assert len(setup.training) == 2
    assert setup.class_counts() == (2 * (24**3 - 12**3), 2 * (12**3 - 5**3), 2 * 5**3)
    assert inverse_frequencies(setup.class_counts())[2] == pytest.approx(24**3 / (3 * 5**3))


def test_dropout_a_sum_of_losses_and_an_interruption_are_still_the_very_same_steps(
    tmp_path: Path, cubes: Dataset
) -> None:
    asked = with_unet({"width": 4, "stages": 3, "dropout": 0.3}, steps=6, loss="sum", loss_options=SUM)
    asked = replace(asked, training=replace(asked.training, checkpoint_minutes=0.0, ema=0.9))
    (tmp_path / "r.toml").write_text(to_toml(asked))
    assert read_recipe(tmp_path / "r.toml") == asked
    train(asked, cubes, tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(asked, cubes, tmp_path / "cut", device="cpu", progress=Interrupting(4))
    train(asked, cubes, tmp_path / "cut", device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "straight")
    assert same_weights(tmp_path / "cut", tmp_path / "straight")
    assert load_model(tmp_path / "cut").spec.name == "unet"


def test_weighted_cross_entropy_learns(tmp_path: Path, cubes: Dataset) -> None:
    asked = with_unet({"width": 4, "stages": 3}, steps=30, epoch_steps=10, loss="weighted_ce")
    train(asked, cubes, tmp_path / "run", device="cpu")
    assert losses(tmp_path / "run")[-1] < 0.7 * losses(tmp_path / "run")[0]


def test_what_network_and_loss_do_not_know_is_refused_before_preparing(tmp_path: Path, cubes: Dataset) -> None:
    for asked, said in (
        (with_unet({"wide": 4}), "wide.*width"),
        (with_unet({"stages": 6}), "divides by 32"),
        (recipe(loss="sum", loss_options={"terms": {"dice": 1, "rice": 1}}), "no loss 'rice'"),
        (recipe(loss="weighted_ce", loss_options={"weights": [1, 2]}), "3 numbers"),
        (replace(recipe(), network=NetworkOptions("alexnet")), "no network"),
    ):
        with pytest.raises(RecipeError, match=said):
            train(asked, cubes, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "prepared").exists() and cubes.scheme == SCHEMES["lits"]
