"""STUDY.TOML -> Study: what is compared, on which data, folds and budget, and what is tuned.

Comes in: a TOML file (or the name of a study that ships with hilum). Goes out: a frozen ``Study``; unknown keys are
refused with the nearest known one. Knows no data and runs nothing.

    name = "five"                       description = "..."
    recipe = "default"                  # what all arms share: a recipe's name or file
    data = "folder=/data/ct"            # or a table of several: { kits = "folder=/a", lits = "folder=/b" }
    folds = [0, 1]                      budget = "30min"            # and/or steps = 500
    protocol = "plain"                  metric = "dice"             processes = 1
    [settings]                          # changes to the recipe for all arms; they alone may touch data and labels
    "data.folds" = 2
    [arms.vnet]                         # changes for one arm
    "network.name" = "vnet"
    [tune]                              # see ``tuning``
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hilum.config import seconds_of
from hilum.errors import RecipeError
from hilum.study.recipes import Changes, changes_from

_NAME = "letters, digits, dots, dashes and underscores: it names a folder"


@dataclass(frozen=True)
class Arm:
    """One of the things compared.

    Attributes:
        name: names its folder and its row.
        changes: dotted keys of the recipe and their values.
        recipe: a recipe of its own instead of the study's, or "".
    """

    name: str
    changes: Changes = field(default_factory=dict)
    recipe: str = ""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``: whole ones if both are, spread evenly in the logarithm if ``log``."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def samples(self) -> tuple[Any, ...]:
        """Values to try a recipe with."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Choices:
    """One of several values, of any kind that TOML knows."""

    choices: tuple[Any, ...]

    @property
    def samples(self) -> tuple[Any, ...]:
        """Values to try a recipe with."""
        return self.choices


@dataclass(frozen=True)
class Tune:
    """What Optuna searches, and how.

    Attributes:
        space: dotted key of the recipe -> where its values lie.
        trials: how many are begun, over all machines that share the storage.
        arm: what the trials start from; "" is the recipe with the study's settings.
        data: of several data sets, the one to tune on.
        folds: held out one after another; pruning decides after each. Empty: the study's.
        metric: "" is the study's.
        region: "" is the mean over regions.
        direction: "maximize" or "minimize"; "" knows it from the metric.
        sampler: "tpe" or "random".
        startup: trials before the sampler and the pruner trust what they have seen.
        pruner: "median", "percentile", "wilcoxon" or "none".
        seed: of the sampler.
        storage: "" is a SQLite file in the study's folder; else any URL that Optuna takes.
    """

    space: Mapping[str, Range | Choices]
    trials: int = 20
    arm: str = ""
    data: str = ""
    folds: tuple[int, ...] = ()
    metric: str = ""
    region: str = ""
    direction: str = ""
    sampler: str = "tpe"
    startup: int = 5
    pruner: str = "median"
    seed: int = 0
    storage: str = ""


@dataclass(frozen=True)
class Study:
    """One study, whole."""

    name: str = "study"
    description: str = ""
    recipe: str = "default"
    data: Mapping[str, str] = field(default_factory=dict)
    folds: tuple[int, ...] = (0,)
    budget: str = ""
    steps: int = 0
    processes: int = 1
    protocol: str = "plain"
    metric: str = "dice"
    settings: Changes = field(default_factory=dict)
    arms: tuple[Arm, ...] = ()
    tune: Tune | None = None
    file: Path = Path("study.toml")

    def arm(self, name: str) -> Arm:
        """The arm of this name; "" is the recipe with the study's settings."""
        return next((arm for arm in self.arms if arm.name == name), Arm(name))


def built_in_studies() -> dict[str, Path]:
    """Studies that ship with hilum, by name."""
    folders = (Path(__file__).parents[1] / "recipes" / "studies", Path(__file__).parents[3] / "recipes" / "studies")
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}


def read_study(path: str | Path, data: str = "", processes: int = 0) -> Study:
    """A study from a TOML file or a built-in name.

    Args:
        path: the file or the name.
        data: KIND=PATH that takes the place of the file's ``data``.
        processes: runs at a time, in the place of the file's.

    Raises:
        RecipeError: no such study, no TOML, unknown keys (the nearest known one is named), values of a wrong type.
    """
    file = Path(path)
    if not file.is_file():
        known = built_in_studies()
        if str(path) not in known:
            raise RecipeError("no such study", where=str(path), wanted=f"a TOML file, or one of {sorted(known)}")
        file = known[str(path)]
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read ({error})", where=file) from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"is not TOML ({error})", where=file, fix="mend that line") from None
    if data:
        table["data"] = data
    if processes:
        table["processes"] = processes
    return study_from(table, file)


def study_from(table: Mapping[str, Any], file: Path) -> Study:
    """A study from nested tables, every key and type checked."""
    where = str(file)
    known = [f.name for f in fields(Study) if f.name != "file"]
    require_known(table, known, "", where)
    values: dict[str, Any] = {}
    for key, kind in {"name": str, "description": str, "recipe": str, "budget": str, "protocol": str}.items():
        values[key] = _typed(table, key, kind, getattr(Study, key), where)
    values["metric"] = _typed(table, "metric", str, Study.metric, where)
    for key, least in {"steps": 0, "processes": 1}.items():
        values[key] = _count(table, key, least, getattr(Study, key), where)
    seconds_of(values["budget"])
    values["folds"] = _folds(table, "folds", (0,), where)
    values["data"] = _data(table.get("data", {}), where)
    values["settings"] = changes_from(_table(table, "settings", where), where, "settings")
    arms = _table(table, "arms", where)
    values["arms"] = tuple(_arm(name, arms, where) for name in arms)
    values["tune"] = _tune(table["tune"], where) if "tune" in table else None
    study = Study(**values, file=file)
    _check(study, where)
    return study


def require_known(table: Mapping[str, Any], known: Sequence[str], prefix: str, where: str) -> None:
    """Refuse keys that nobody would read, naming the nearest that is known."""
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            fix = f"did you mean {prefix + near[0]!r}?" if near else "remove it"
            raise RecipeError(f"unknown key {prefix + key!r}", where=where, wanted=f"one of {list(known)}", fix=fix)


def _check(study: Study, where: str) -> None:
    if not study.arms and study.tune is None:
        fix = 'add [arms.NAME] tables, such as [arms.vnet] with "network.name" = "vnet"'
        raise RecipeError("compares nothing: it has no arms and tunes nothing", where=where, fix=fix)
    tune = study.tune
    if tune is None:
        return
    names = [arm.name for arm in study.arms]
    for key, value, known in (("arm", tune.arm, names), ("data", tune.data, list(study.data))):
        if value and value not in known:
            near = difflib.get_close_matches(value, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else None
            raise RecipeError(f"tune.{key} = {value!r}", where=where, wanted=f"one of {known}", fix=hint)
    if len(study.data) > 1 and not tune.data:
        raise RecipeError("tunes on one of several data sets", where=where, wanted=f"tune.data, of {list(study.data)}")


def _arm(name: str, arms: Mapping[str, Any], where: str) -> Arm:
    _folder_name(name, "arms", where)
    table = dict(_table(arms, name, where, "arms."))
    recipe = _typed(table, "recipe", str, "", where, f"arms.{name}.")
    table.pop("recipe", None)
    changes = changes_from(table, where, f"arms.{name}", for_arm=True)
    return Arm(name, changes, recipe)


def _data(given: Any, where: str) -> dict[str, str]:
    """Name -> KIND=PATH; one alone bears the name of its kind."""
    wanted = 'KIND=PATH such as "folder=/data/ct", or a table of them: { mine = "folder=/data/ct" }'
    if isinstance(given, str):
        given = {given.partition("=")[0].rpartition(".")[2] or "data": given}
    if not isinstance(given, Mapping):
        raise RecipeError(f"data = {given!r}", where=where, wanted=wanted)
    for name, text in given.items():
        if not isinstance(text, str) or not all(text.partition("=")):
            raise RecipeError(f"data {name!r} = {text!r}", where=where, wanted=wanted)
        _folder_name(name, "data", where)
    return dict(given)


def _tune(table: Any, where: str) -> Tune:
    if not isinstance(table, Mapping):
        raise RecipeError(f"tune = {table!r}", where=where, wanted="a table [tune]")
    require_known(table, [f.name for f in fields(Tune)], "tune.", where)
    space = _table(table, "space", where, "tune.")
    if not space:
        fix = 'add [tune.space] with "training.learning_rate" = { low = 1e-4, high = 1e-2, log = true }'
        raise RecipeError("tunes nothing", where=where, fix=fix)
    values: dict[str, Any] = {"space": {key: _space(key, value, where) for key, value in space.items()}}
    for key in ("arm", "data", "metric", "region", "storage"):
        values[key] = _typed(table, key, str, "", where, "tune.")
    kinds = {"direction": ("", "maximize", "minimize"), "sampler": ("tpe", "random")}
    for key, known in (kinds | {"pruner": ("median", "percentile", "wilcoxon", "none")}).items():
        values[key] = _typed(table, key, str, getattr(Tune, key), where, "tune.")
        if values[key] not in known:
            raise RecipeError(f"tune.{key} = {values[key]!r}", where=where, wanted=f"one of {[k for k in known if k]}")
    for key, least in {"trials": 1, "startup": 0, "seed": 0}.items():
        values[key] = _count(table, key, least, getattr(Tune, key), where, "tune.")
    return Tune(folds=_folds(table, "folds", (), where, "tune."), **values)


def _space(key: str, given: Any, where: str) -> Range | Choices:
    name = f"tune.space.{key}"
    wanted = "{ low = ..., high = ..., log = true or false, step = ... } or { choices = [...] }"
    if not isinstance(given, Mapping) or not ({"low", "high"} <= given.keys() or "choices" in given):
        raise RecipeError(f"{name} = {given!r}", where=where, wanted=wanted)
    if "choices" in given:
        require_known(given, ["choices"], f"{name}.", where)
        if not isinstance(given["choices"], list) or len(given["choices"]) < 2:
            raise RecipeError(f"{name} = {given!r}", where=where, wanted="a list of at least two choices")
        return Choices(tuple(given["choices"]))
    require_known(given, ["low", "high", "log", "step"], f"{name}.", where)
    low, high, log, step = given["low"], given["high"], given.get("log", False), given.get("step")
    numbers = [low, high] if step is None else [low, high, step]
    good = all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers) and isinstance(log, bool)
    if (
        not good
        or not low < high
        or (log and low <= 0)
        or (log and step is not None)
        or (step is not None and step <= 0)
    ):
        raise RecipeError(
            f"{name} = {given!r}", where=where, wanted="numbers, low below high; above 0 and without a step if log"
        )
    return Range(low, high, log, step)


def _table(table: Mapping[str, Any], key: str, where: str, prefix: str = "") -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise RecipeError(f"{prefix}{key} = {value!r}", where=where, wanted="a table")
    return value


def _typed(table: Mapping[str, Any], key: str, kind: type, default: Any, where: str, prefix: str = "") -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise RecipeError(f"{prefix}{key} = {value!r}", where=where, wanted="a text")
    return value


def _count(table: Mapping[str, Any], key: str, least: int, default: int, where: str, prefix: str = "") -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RecipeError(f"{prefix}{key} = {value!r}", where=where, wanted=f"a whole number from {least}")
    return value


def _folds(
    table: Mapping[str, Any], key: str, default: tuple[int, ...], where: str, prefix: str = ""
) -> tuple[int, ...]:
    value = table.get(key, list(default))
    good = isinstance(value, list) and all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in value)
    if not good or len(set(value)) < len(value) or (key in table and not value):
        raise RecipeError(f"{prefix}{key} = {value!r}", where=where, wanted="a list of folds, e.g. [0, 1], each once")
    return tuple(value)


def _folder_name(name: str, prefix: str, where: str) -> None:
    if not name or name.startswith(".") or not all(c.isalnum() or c in "._-" for c in name):
        raise RecipeError(f"{prefix}.{name!r}", where=where, wanted=_NAME)
