"""BASE RECIPE + CHANGES -> the recipe of one arm or trial.

Comes in: a recipe's table, dotted keys with values. Goes out: a checked ``Recipe``. Changes may be written as dotted
keys (``"network.name" = "vnet"``) or as tables (``[arms.vnet.network]``); both mean the same.

Options belong to what they were written for: a change of ``network.name`` drops the base's ``network.options`` unless
it brings its own (so for ``training.loss`` and ``patches.augment``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hilum.config import Recipe, read_recipe, recipe_from, to_table
from hilum.errors import RecipeError

Changes = dict[str, Any]

_SECTIONS = tuple(f.name for f in fields(Recipe) if is_dataclass(f.default))
_OPTIONS_OF = {
    "network.name": "network.options",
    "training.loss": "training.loss_options",
    "patches.augment": "patches.augment_options",
}


def changes_from(table: Mapping[str, Any], where: str, owner: str, for_arm: bool = False) -> Changes:
    """Dotted keys from tables and dotted keys.

    Args:
        table: as TOML has it.
        where: the file, for messages.
        owner: the table's name, for messages.
        for_arm: refuse what would make arms unequal: other data, folds or labels.

    Raises:
        RecipeError: a key that the study itself sets, or that an arm may not change.
    """
    changes: Changes = {}
    for key, value in table.items():
        if key in _SECTIONS and isinstance(value, Mapping):
            changes |= {f"{key}.{inner}": deep for inner, deep in value.items()}
        else:
            changes[key] = value
    for key in changes:
        first = key.partition(".")[0]
        if key in ("name", "data.dataset", "data.path"):
            fix = "write data = ... at the top of the study" if first == "data" else "the table's own name is the name"
            raise RecipeError(f"{owner} changes {key!r}", where=where, fix=fix)
        if for_arm and first in ("data", "labels"):
            raise RecipeError(
                f"{owner} changes {key!r}",
                where=where,
                wanted="the same cases, folds and labels for every arm: otherwise they cannot be compared",
                fix=f"write {key!r} under [settings], for all arms",
            )
    return changes


def base_recipe(name: str, beside: Path) -> Recipe:
    """A recipe by its built-in name or file; a relative file is looked for beside the study first."""
    near = beside.parent / name
    return read_recipe(near if near.is_file() else name)


def changed(recipe: Recipe, changes: Mapping[str, Any], where: str, **head: Any) -> Recipe:
    """The recipe with some keys changed.

    Args:
        recipe: the base.
        changes: dotted keys and values.
        where: whose changes these are, for messages.
        head: fields of the recipe that are set as they are (``name``, ``data``).

    Raises:
        RecipeError: a key that recipes do not know (the nearest known one is named), or a value of a wrong type.
    """
    table = to_table(recipe)
    for key, options in _OPTIONS_OF.items():
        if key in changes and changes[key] != _get(table, key) and options not in changes:
            _set(table, options, {}, where)
    for key, value in changes.items():
        _set(table, key, copy.deepcopy(value), where)
    return replace(recipe_from(table, where), **head)


def _get(table: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        table = table[part]
    return table


def _set(table: dict[str, Any], key: str, value: Any, where: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inside = table.setdefault(section, {})
        if not isinstance(inside, dict):
            raise RecipeError(f"{key!r}: {section!r} is no section", where=where)
        table = inside
    table[last] = value
