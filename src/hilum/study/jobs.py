"""A JOB: one run of a study, what it is, where it lies, what it left.

    OUT/runs/<data>/<arm>/fold_<k>/           the folder of ``hilum train``, and beside what that writes:
        job.json                              what to do: the recipe's table, fold, device, cores
        result.json                           what came of it: status, seconds, memory, the recipe it was done with
        worker.log                            what it said
        claim                                 locked by the process at work on it (and by its child)
    OUT/prepared/<key>/                       cases prepared once for all runs that want them alike; folds.json

Comes in: a study. Goes out: jobs, and claims on them. Runs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hilum.config import Recipe, recipe_from, to_table, with_labels
from hilum.datasets import Dataset
from hilum.errors import InputError, RecipeError
from hilum.files import read_json
from hilum.study.design import Arm, Study
from hilum.study.recipes import base_recipe, changed

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Job:
    """One run.

    Attributes:
        arm: its name ("trial_0003" for a trial).
        data: name of the data set.
        fold: held out.
        folder: of the run.
        prepared: folder of the cases prepared for it and others.
        recipe: whole, data and labels included.
    """

    arm: str
    data: str
    fold: int
    folder: Path
    prepared: Path
    recipe: Recipe

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.arm} on {self.data}, fold {self.fold}"

    @property
    def key(self) -> str:
        """What its result depends on, as a sha256; where the data lie and what the run is called do not count."""
        return _key(self.recipe, self.fold)

    def result(self) -> dict[str, Any] | None:
        """What an earlier run of this very job has left, or None."""
        found = read_result(self.folder)
        return found if found and self.is_of(found) else None

    def is_of(self, found: dict[str, Any]) -> bool:
        """Whether a result is of this very job; what recipes could not say when it was made has its default."""
        if found.get("key") == self.key:
            return True
        try:
            return _key(recipe_from(found["recipe"]), found["fold"]) == self.key
        except (RecipeError, KeyError):
            return False

    @property
    def is_done(self) -> bool:
        """Whether it ran to its end."""
        found = self.result()
        return found is not None and found.get("status") == "done"


def arm_recipe(study: Study, arm: Arm, data: str, dataset: Dataset) -> Recipe:
    """The whole recipe of an arm on a data set: base, settings, budget, the arm's own changes, data, labels.

    Raises:
        RecipeError: a recipe that does not exist, a key that recipes do not know.
    """
    where, kind_path = str(study.file), study.data[data].partition("=")
    recipe = changed(base_recipe(study.recipe, study.file), study.settings, f"{where}: settings")
    if arm.recipe:
        recipe = replace(base_recipe(arm.recipe, study.file), data=recipe.data, labels=recipe.labels)
    limits: dict[str, Any] = {}
    if study.steps:
        limits = {"training.steps": study.steps, "training.epochs": 0, "training.budget": study.budget}
    elif study.budget:
        limits = {"training.budget": study.budget}
    owner = f"{where}: arms.{arm.name}" if arm.name else where
    recipe = changed(recipe, {**limits, **arm.changes}, owner)
    place = replace(recipe.data, dataset=kind_path[0], path=str(Path(kind_path[2]).expanduser().absolute()))
    return with_labels(replace(recipe, name=arm.name or study.name, data=place), dataset.scheme)


def arm_jobs(study: Study, out: Path, arm: Arm, data: str, recipe: Recipe) -> list[Job]:
    """A job for each fold."""
    folder = out / "runs" / data / arm.name
    prepared = prepared_folder(out, recipe)
    return [Job(arm.name, data, fold, folder / f"fold_{fold}", prepared, recipe) for fold in study.folds]


def prepared_folder(out: Path, recipe: Recipe) -> Path:
    """Where cases lie for all runs that prepare the same data in the same way and split them alike."""
    table = to_table(recipe)
    return out / "prepared" / _sha([table["data"], table["prepare"], table["labels"]])[:12]


def read_result(folder: Path) -> dict[str, Any] | None:
    """``result.json`` of a run's folder, or None if there is none that can be read."""
    try:
        found = read_json(folder / "result.json")
    except InputError:
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


@contextmanager
def claim(folder: Path) -> Iterator[int | None]:
    """Hold a folder for this process: the number of an open file, or None if another process holds it.

    The lock belongs to the open file: a child that inherits the file keeps it when this process is killed, and it is
    gone when both are. Systems without ``fcntl`` (Windows) have no such lock: there, run one study process at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "claim", "a", encoding="ascii") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except ImportError:
            pass
        yield file.fileno()


def differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    """``key was a and is b`` for everything in two nested tables that is not equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        told = []
        for key in dict.fromkeys([*before, *now]):
            told += differences(before.get(key), now.get(key), f"{prefix}.{key}" if prefix else key)
        return told
    return [] if before == now else [f"{prefix} was {before!r} and is {now!r}"]


def _key(recipe: Recipe, fold: int) -> str:
    table = to_table(recipe)
    for word in ("name", "description"):
        table.pop(word)
    table["data"].pop("path")
    return _sha([FORMAT, table, fold])


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
