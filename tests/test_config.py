from __future__ import annotations

from pathlib import Path

import pytest

from hilum.config import (
    Recipe,
    built_in_recipes,
    read_recipe,
    recipe_from,
    seconds_of,
    to_table,
    to_toml,
    with_labels,
)
from hilum.errors import RecipeError, UsageError
from hilum.labels import SCHEMES


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(text)
    return path


def test_a_recipe_says_only_what_differs(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, 'name = "x"\n[training]\nsteps = 5\n'))
    assert recipe.training.steps == 5 and recipe.training.optimizer == "sgd" and recipe.name == "x"


def test_recipes_survive_toml_and_tables(tmp_path: Path) -> None:
    recipe = recipe_from(
        {
            "labels": {"name": "a b", "values": {"left kidney": 1, 'so "called"': 2}},
            "prepare": {"spacing_mm": [3, 1.5, 1.5], "dims": 2},
            "patches": {"augment_options": {"mirror": 0.5}},
            "postprocess": [{"step": "drop_small", "min_ml": 0.1}, {"step": "fill_holes"}],
        }
    )
    assert read_recipe(write(tmp_path, to_toml(recipe))) == recipe
    assert recipe_from(to_table(recipe)) == recipe


def test_overrides_take_numbers_lists_and_words(tmp_path: Path) -> None:
    sets = ["training.steps=7", "prepare.patch=[8,16,16]", "training.optimizer=adamw", "network.options.dropout=0.1"]
    recipe = read_recipe(write(tmp_path, ""), sets)
    assert recipe.training.steps == 7 and recipe.prepare.patch == (8, 16, 16)
    assert recipe.training.optimizer == "adamw" and recipe.network.options == {"dropout": 0.1}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[training]\nstepz = 5", r"r.toml: unknown key 'training.stepz'.*did you mean 'training.steps'"),
        ("nam = 1", "unknown key 'nam'.*did you mean 'name'"),
        ("[training]\nsteps = 'many'", "training.steps = 'many'.*a whole number"),
        ("[training]\nsteps = 1.5", "training.steps = 1.5.*a whole number"),
        ("[training]\nsteps = true", "training.steps = True"),
        ("[training]\nprecision = 'int4'", "training.precision.*one of"),
        ("[prepare]\nspacing_mm = 3", "prepare.spacing_mm = 3.*a list of a number"),
        ("[prepare]\nspacing_mm = ['x']", r"prepare.spacing_mm\[0\] = 'x'"),
        ("prepare = 3", "prepare = 3.*a table"),
        ("[network]\noptions = 3", "network.options = 3.*a table"),
        ("[prepare]\ndims = 3.0", "prepare.dims = 3.0.*one of"),
        ("labels = 'kitz'", "no label scheme 'kitz'"),
        ("labels = 5", "a label scheme 5"),
        ("a b", "is not TOML"),
    ],
)
def test_faults_are_named_with_the_remedy(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(UsageError, match=found):
        read_recipe(write(tmp_path, text))


def test_a_recipe_that_is_not_there_lists_the_built_in_ones() -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.toml: no such recipe"):
        read_recipe("nowhere.toml")


@pytest.mark.parametrize("name", sorted(built_in_recipes()))
def test_every_built_in_recipe_is_read(name: str) -> None:
    assert isinstance(read_recipe(name), Recipe)


def test_overrides_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"SECTION\.KEY=VALUE"):
        read_recipe(write(tmp_path, ""), ["training.steps"])
    with pytest.raises(UsageError, match="no section"):
        read_recipe(write(tmp_path, "name = 'x'"), ["name.x=1"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("30 min", 1800), ("2h", 7200), ("1h30m", 5400), ("", None)]
)
def test_budgets(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["soon", "5", "2 moons", "h2", "1.2.3h", "-2h"])
def test_budgets_that_are_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="budget"):
        seconds_of(text)


def test_a_recipe_without_labels_takes_the_data_set_s_own_or_asks() -> None:
    recipe = recipe_from({"name": "quiet"})
    with pytest.raises(RecipeError, match="does not say what the labels mean"):
        recipe.scheme  # noqa: B018
    assert with_labels(recipe, SCHEMES["lits"]).scheme == SCHEMES["lits"]
    assert with_labels(recipe_from({"labels": "kits"}), SCHEMES["lits"]).scheme == SCHEMES["kits"]


def test_a_head_is_labels_or_regions() -> None:
    assert recipe_from({}).network.head == "labels"
    assert recipe_from({"network": {"head": "regions"}}).network.head == "regions"
    with pytest.raises(RecipeError, match=r"network.head = 'sigmoid'"):
        recipe_from({"network": {"head": "sigmoid"}})
