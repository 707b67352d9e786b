"""Recipes: everything a person chose for a training run, in one TOML file.

Comes in: a TOML file (or a built-in recipe's name) and ``section.key=value`` overrides. Goes out: a frozen ``Recipe``.
Unknown keys are refused with the nearest known one. What the *data* decided is the plan (``prepare/plan.py``), never
here.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hilum.errors import RecipeError, UsageError
from hilum.labels import SCHEMES, LabelScheme, scheme_from


@dataclass(frozen=True)
class DataOptions:
    """Which cases. ``dataset`` is a file name in ``hilum/datasets`` (or a dotted name of one's own).

    ``stratify`` makes folds even in the volume of lesions, from cases without to the largest; otherwise chance does.
    """

    dataset: str = ""
    path: str = ""
    folds: int = 5
    stratify: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PrepareOptions:
    """What the plan must respect; zeros and empty lists mean "decide from the data"."""

    dims: Literal[2, 3] = 3
    spacing_mm: tuple[float, ...] = ()
    patch: tuple[int, ...] = ()
    batch: int = 0
    memory_gb: float = 8.0
    base_features: int = 32
    max_features: int = 320
    normalisation: Literal["ct", "zscore", "window"] = "ct"
    window_hu: tuple[float, ...] = ()


@dataclass(frozen=True)
class NetworkOptions:
    """A file name in ``hilum/networks`` and what it takes besides the plan."""

    name: str = "plain_unet"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PatchOptions:
    """How patches are drawn and augmented."""

    foreground: float = 0.33
    augment: str = "default"
    augment_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingOptions:
    """The loop. The run ends at ``steps`` or, where a budget is given, when the budget is spent.

    ``momentum`` is SGD's Nesterov momentum or Adam's beta1; below 0 it is the optimiser's usual one (0.99 and 0.9).
    """

    steps: int = 250_000
    epoch_steps: int = 250
    budget: str = ""
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    weight_decay: float = 3e-5
    momentum: float = -1.0
    schedule: str = "poly"
    warmup_steps: int = 0
    loss: str = "dice_ce"
    loss_options: dict[str, Any] = field(default_factory=dict)
    deep_supervision: bool = True
    ema: float = 0.0
    clip_norm: float = 12.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    checkpoint_minutes: float = 5.0
    seed: int = 0


@dataclass(frozen=True)
class InferenceOptions:
    """How scans are segmented with the trained model."""

    overlap: float = 0.5
    mirror: bool = False


@dataclass(frozen=True)
class Recipe:
    """One run, whole.

    ``labels`` is a scheme's name or its table, or "" for what the data set itself says; ``postprocess`` a list of
    ``{step = name, ...}`` in order.
    """

    name: str = "own"
    description: str = ""
    labels: Any = ""
    data: DataOptions = DataOptions()
    prepare: PrepareOptions = PrepareOptions()
    network: NetworkOptions = NetworkOptions()
    patches: PatchOptions = PatchOptions()
    training: TrainingOptions = TrainingOptions()
    inference: InferenceOptions = InferenceOptions()
    postprocess: tuple[dict[str, Any], ...] = ()

    @property
    def scheme(self) -> LabelScheme:
        """The label scheme that ``labels`` names or describes.

        Raises:
            RecipeError: it says nothing, and no data set has filled it in (``with_labels``).
        """
        if not self.labels:
            raise RecipeError(
                f"recipe {self.name!r} does not say what the labels mean, nor do the data",
                wanted=f"a label scheme: one of {sorted(SCHEMES)}, or a table of your own",
                fix="add --set labels=lits, or a [labels] table with values = { liver = 1, tumour = 2 }",
            )
        return scheme_from(self.labels)


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
    folders = (Path(__file__).parent / "recipes", Path(__file__).parents[2] / "recipes")
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
