"""STUDY.TOML -> Study: what is understood, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hilum.config import built_in_recipes, read_recipe
from hilum.errors import HilumError, RecipeError
from hilum.study import built_in_studies, read_study
from hilum.study.design import Choices, Range, study_from
from hilum.study.recipes import base_recipe, changed, changes_from

FILE = Path("x.toml")
ARM = {"arms": {"unet": {"network.name": "unet"}}}


def test_a_study_is_read_whole() -> None:
    study = study_from(
        {
            "name": "mine",
            "data": {"a": "folder=/a", "b": "my.module=/b=c"},
            "folds": [1, 0],
            "budget": "30min",
            "arms": {"one": {"network": {"name": "unet"}, "recipe": "demo"}, "two": {"training.ema": 0.5}},
            "tune": {
                "data": "b",
                "arm": "one",
                "space": {
                    "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                    "prepare.batch": {"low": 1, "high": 4},
                    "network.name": {"choices": ["unet", "vnet"]},
                },
            },
        },
        FILE,
    )
    assert study.data == {"a": "folder=/a", "b": "my.module=/b=c"} and study.folds == (1, 0)
    assert study.arm("one").changes == {"network.name": "unet"} and study.arm("one").recipe == "demo"
    assert study.tune is not None
    rate, batch, name = study.tune.space.values()
    assert rate == Range(1e-4, 1e-2, log=True) and isinstance(rate, Range) and not rate.whole
    assert isinstance(batch, Range) and batch.whole and name == Choices(("unet", "vnet"))
    assert study_from({**ARM, "data": "phantom=p"}, FILE).data == {"phantom": "phantom=p"}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"foldz": [0], **ARM}, "did you mean 'folds'"),
        ({}, "compares nothing"),
        ({"arms": {"a b": {}}}, "names a folder"),
        ({"arms": {"a": {"data.seed": 3}}}, "the same cases, folds and labels"),
        ({"arms": {"a": {"labels": "lits"}}}, "the same cases, folds and labels"),
        ({"arms": {"a": {"name": "b"}}}, "the table's own name"),
        ({"arms": 3}, "wanted a table"),
        ({**ARM, "settings": {"data.path": "/x"}}, "write data = ..."),
        ({**ARM, "data": "folder"}, "KIND=PATH"),
        ({**ARM, "folds": [0, 0]}, "each once"),
        ({**ARM, "folds": []}, "each once"),
        ({**ARM, "steps": True}, "whole number"),
        ({**ARM, "processes": 0}, "whole number from 1"),
        ({**ARM, "budget": "soon"}, "a time such as"),
        ({**ARM, "metric": 3}, "a text"),
        ({"tune": {}}, "tunes nothing"),
        ({"tune": {"spaces": {}}}, "did you mean 'tune.space'"),
        ({"tune": {"space": {"a": {"low": 1}}}}, "{ low = ..., high = ..."),
        ({"tune": {"space": {"a": {"low": 2, "high": 1}}}}, "low below high"),
        ({"tune": {"space": {"a": {"low": 0, "high": 1, "log": True}}}}, "above 0"),
        ({"tune": {"space": {"a": {"low": 1, "high": 2, "lag": True}}}}, "did you mean 'tune.space.a.log'"),
        ({"tune": {"space": {"a": {"choices": [1]}}}}, "at least two choices"),
        ({"tune": {"pruner": "hope", "space": {"a": {"choices": [1, 2]}}}}, "'median'"),
        ({**ARM, "tune": {"arm": "unnet", "space": {"a": {"choices": [1, 2]}}}}, "did you mean 'unet'"),
        ({"data": {"a": "x=y", "b": "x=z"}, "tune": {"space": {"a": {"choices": [1, 2]}}}}, "tune.data"),
    ],
)
def test_what_cannot_be_followed_is_refused(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HilumError) as error:
        study_from(table, FILE)
    assert sentence in str(error.value) and error.value.exit_code == 2


def test_keys_that_recipes_do_not_know_name_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"arms\.a: unknown key 'training\.steppes'.*did you mean 'training\.steps'"):
        changed(read_recipe("default"), {"training.steppes": 3}, "x.toml: arms.a")
    with pytest.raises(RecipeError, match="no section"):
        changed(read_recipe("default"), {"name.first": 3}, "x.toml")


def test_options_belong_to_what_they_were_written_for() -> None:
    demo = read_recipe("demo")
    assert demo.network.options == {"decoder_convs": 1}
    assert changed(demo, {"training.ema": 0.5}, "x").network.options == {"decoder_convs": 1}
    assert changed(demo, {"network.name": "plain_unet"}, "x").network.options == {"decoder_convs": 1}
    assert changed(demo, {"network.name": "unet"}, "x").network.options == {}
    both = changes_from({"network": {"name": "unet", "options": {"width": 8}}}, "x", "arms.a")
    assert changed(demo, both, "x").network.options == {"width": 8}
    assert changed(demo, {"network.name": "unet", "network.options.width": 4}, "x").network.options == {"width": 4}
    assert demo.network.options == {"decoder_convs": 1}


def test_a_recipe_is_looked_for_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('name = "beside"\n')
    assert base_recipe("base.toml", tmp_path / "study.toml").name == "beside"
    assert base_recipe("demo", tmp_path / "study.toml").name == "demo"


def test_studies_that_ship_are_named_after_their_file_and_no_recipes() -> None:
    studies = built_in_studies()
    assert {"five_networks", "phantom_networks", "phantom_tuning"} <= set(studies)
    assert not set(studies) & set(built_in_recipes())
    for name, path in studies.items():
        study = read_study(name)
        assert study.name == name and study.description and study.file == path
        for arm in study.arms:
            recipe = base_recipe(arm.recipe or study.recipe, path)
            changed(changed(recipe, study.settings, name), arm.changes, name)


def test_a_study_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no such study.*phantom_networks"):
        read_study("nowhere")
    (tmp_path / "s.toml").write_text("name = ")
    with pytest.raises(RecipeError, match="is not TOML"):
        read_study(tmp_path / "s.toml")
    (tmp_path / "s.toml").write_text('[arms.a]\n"training.ema" = 0.5\n')
    study = read_study(tmp_path / "s.toml", "folder=/x", 3)
    assert study.data == {"folder": "folder=/x"} and study.processes == 3
