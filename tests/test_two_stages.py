"""A locator and the network inside what it finds, by one recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilum.config import LocatorOptions, read_recipe, to_toml
from hilum.errors import RecipeError
from hilum.inference.predict import Predictor
from hilum.model import load_model
from hilum.patches.sampling import Sampler
from hilum.scans import read_scan
from hilum.training.loop import train
from hilum.training.two_stages import check_locator, fine_recipe, locator_recipe
from making_runs import make_cases, one_thread, recipe
from test_sampling import PATCH, STORE

__all__ = ["one_thread"]  # a fixture that works by itself


def test_one_recipe_trains_both_and_the_model_carries_its_locator(tmp_path: Path) -> None:
    """What a locator is worth when it segments is held in test_region."""
    dataset = make_cases(tmp_path / "cubes")
    options = LocatorOptions(spacing_mm=2.0, patch=(8, 8, 8), base_features=4, steps=3, margin_mm=4.0)
    asked = replace(recipe(steps=3), locator=options)
    (tmp_path / "r.toml").write_text(to_toml(asked))
    assert read_recipe(tmp_path / "r.toml") == asked
    result = train(asked, dataset, tmp_path / "run", device="cpu")
    model, locator = load_model(result.model), load_model(result.model / "locator")
    assert locator.plan.spacing_mm == (2.0, 2.0, 2.0) and model.plan.spacing_mm == (1.0, 1.0, 1.0)
    assert list(result.held_out) == locator.card["held_out"] == model.card["held_out"]
    assert Predictor(model, "cpu").region and not Predictor(locator, "cpu").region
    assert train(asked, dataset, tmp_path / "run", device="cpu").was_finished
    held_out = next(case for case in dataset.cases if case.name in result.held_out)
    assert Predictor(model, "cpu").segment(read_scan(held_out.image)).shape == (24, 24, 24)
    other = train(replace(asked, locator=replace(options, steps=4)), dataset, tmp_path / "other", device="cpu")
    first, second = (load_model(folder / "locator") for folder in (result.model, other.model))
    assert first.hash != second.hash and load_model(other.model).hash != model.hash


def test_patches_stay_near_what_is_labelled() -> None:
    near = Sampler(STORE, ("both", "empty"), PATCH, 0.0, seed=0, within=(1, 1, 1))
    far = Sampler(STORE, ("both", "empty"), PATCH, 0.0, seed=0)
    box = np.array([[5 - 1, 8 - 1, 10 - 1], [13 + 1, 14 + 1, 20 + 1]])
    for sampler, inside in ((near, True), (far, False)):
        places = [sampler.place(1, step, 0) for step in range(300)]
        centres = np.array([p.corner for p in places if p.name == "both"]) + 4
        free = (centres > 4) & (centres < np.array([16, 20, 24]))  # not pushed in from an edge
        out = ((centres < box[0]) | (centres >= box[1])) & free
        assert bool(out.any()) is not inside
        assert any(p.name == "empty" for p in places)  # nothing is labelled there: anywhere


def test_the_budget_is_shared() -> None:
    asked = replace(recipe(budget="100s"), locator=LocatorOptions(spacing_mm=4.0, budget_share=0.25, steps=9))
    assert locator_recipe(asked).training.budget == "25.0s" and fine_recipe(asked).training.budget == "75.0s"
    assert locator_recipe(asked).training.steps == 9 and locator_recipe(asked).locator.spacing_mm == 0
    assert fine_recipe(asked).patches.within_mm == 30.0


@pytest.mark.parametrize(
    ("options", "dims", "said"),
    [
        (LocatorOptions(spacing_mm=-1), 3, "locator.spacing_mm: -1"),
        (LocatorOptions(spacing_mm=4), 2, "dims = 2"),
        (LocatorOptions(spacing_mm=4, budget_share=1.0), 3, "budget_share: 1.0"),
    ],
)
def test_what_cannot_be_is_refused(options: LocatorOptions, dims: int, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_locator(options, dims)
