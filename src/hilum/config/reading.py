"""TOML to a checked ``Recipe`` and back.

Comes in: a TOML file (or a built-in recipe's name) and ``section.key=value`` overrides. Goes out: a frozen ``Recipe``.
Unknown keys are refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hilum.config.recipe import Recipe
from hilum.errors import RecipeError, UsageError
from hilum.labels import LabelScheme, scheme_from


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a TOML file or a built-in name, with ``section.key=value`` overrides applied.

    Raises:
        RecipeError: no such recipe, no TOML, an unknown key (the nearest known one is named), a value of a wrong type.
    """
    file = _find(path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read ({error})", where=file) from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"is not TOML ({error})", where=file, fix="mend that line") from None
    for override in overrides:
        _apply(table, override)
    return recipe_from(table, str(file))


def recipe_from(table: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from nested tables, every key and type checked."""
    recipe: Recipe = _build(Recipe, table, "", where)
    if recipe.labels:
        scheme_from(recipe.labels)  # one that does not exist is a fault of the recipe, found here and not hours later
    return recipe


def with_labels(recipe: Recipe, scheme: LabelScheme | None) -> Recipe:
    """The recipe with the data set's own label scheme, unless it names one itself."""
    return (
        recipe if recipe.labels or scheme is None else replace(recipe, labels=json.loads(json.dumps(scheme.to_json())))
    )


def built_in_recipes() -> dict[str, Path]:
    """Recipes that ship with hilum, by name."""
    folders = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes")
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}


def to_table(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested plain tables (tuples as lists), for JSON."""
    table: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return table


def to_toml(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as TOML that ``read_recipe`` takes."""
    table = to_table(recipe)
    steps = table.pop("postprocess")
    lines = [f"{key} = {_toml(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for section, values in table.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]", *(f"{_key(key)} = {_toml(value)}" for key, value in values.items())]
    for step in steps:
        lines += ["", "[[postprocess]]", *(f"{_key(key)} = {_toml(value)}" for key, value in step.items())]
    return "\n".join(lines) + "\n"


def seconds_of(budget: str) -> float | None:
    """``"2h"``, ``"90 min"``, ``"45s"``, ``"1h30m"`` in seconds; ``""`` is None."""
    text = budget.strip().lower()
    if not text:
        return None
    units = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
    total, number, unit = 0.0, "", ""
    if set(text) - set("0123456789. abcdefghijklmnopqrstuvwxyz"):
        text = ""
    for char in f"{text} 0":
        if char.isdigit() or char == ".":
            if unit:
                total += _amount(budget, number) * units.get(unit, float("nan"))
                number, unit = "", ""
            number += char
        elif char.isalpha():
            unit += char
    if not total > 0 or number != "0":
        raise UsageError(f"budget {budget!r}", wanted="a time such as 45s, 30min, 2h or 1h30m")
    return total


def _amount(budget: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise UsageError(f"budget {budget!r}", wanted="a time such as 45s, 30min, 2h or 1h30m") from None


def _find(path: str | Path) -> Path:
    file = Path(path)
    if file.is_file():
        return file
    known = built_in_recipes()
    if str(path) in known:
        return known[str(path)]
    raise RecipeError("no such recipe", where=str(path), wanted=f"a TOML file, or one of {sorted(known)}")


def _apply(table: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set {override!r}", wanted="SECTION.KEY=VALUE, e.g. training.steps=500")
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, key = name.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {override!r}: {section!r} is no section")
    table[key] = value


def _build(kind: Any, table: Mapping[str, Any], prefix: str, where: str) -> Any:
    hints, known = get_type_hints(kind), [f.name for f in fields(kind)]
    values = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise RecipeError(
                f"unknown key {prefix + key!r}",
                where=where,
                wanted=f"one of {known}",
                fix=f"did you mean {prefix + near[0]!r}?" if near else "remove it",
            )
        values[key] = _value(hints[key], value, prefix + key, where)
    return replace(kind(), **values)


def _value(hint: Any, value: Any, name: str, where: str) -> Any:
    wrong = RecipeError(f"{name} = {value!r}", where=where, wanted=_say(hint))
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise wrong
        return _build(hint, value, f"{name}.", where)
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint) or type(value) is not type(get_args(hint)[0]):
            raise wrong
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise wrong
        return tuple(_value(get_args(hint)[0], item, f"{name}[{i}]", where) for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise wrong
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or (isinstance(value, hint) and isinstance(value, bool) == (hint is bool)):
        return value
    raise wrong


def _say(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {list(get_args(hint))}"
    if get_origin(hint) is tuple:
        return f"a list of {_say(get_args(hint)[0])}"
    if get_origin(hint) is dict or is_dataclass(hint):
        return "a table"
    names: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(hint, str(hint) if isinstance(hint, types.GenericAlias) else getattr(hint, "__name__", "a value"))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(str(k))} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    return json.dumps(value, ensure_ascii=False)
