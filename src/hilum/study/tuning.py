"""A SPACE OF RECIPES -> THE BEST ONE: Optuna suggests, hilum runs, fold after fold; the hopeless are pruned between.

    OUT/tune/optuna.db                          Optuna's own record (unless ``storage`` names another)
    OUT/tune/trial_0003/recipe.toml             the trial, whole: ``hilum train`` on it gives the same model on a CPU
    OUT/tune/trial_0003/fold_<k>/               its runs, as in ``jobs``

Comes in: a study with a ``[tune]`` table. Goes out: trials, the best, how much each key mattered. Many machines share a
search by sharing its ``storage`` and running the same study, each with a folder of its own. A trial that was
interrupted goes on in the folder in which it was begun.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum.config import Recipe, to_toml
from hilum.datasets import Dataset
from hilum.errors import HilumError, RecipeError, TrainingError, UsageError
from hilum.files import plain, write_json, write_text
from hilum.judge.compare import better
from hilum.judge.evaluate import evaluate_pairs
from hilum.runs import PLAIN
from hilum.study.design import Study, Tune
from hilum.study.jobs import Job, arm_recipe, claim, prepared_folder
from hilum.study.measuring import check_metric, predictions_of
from hilum.study.recipes import changed, changes_from
from hilum.study.running import Runner
from hilum.study.suggesting import importance_of, optuna_library, pruner_of, sampler_of, space_table, suggest

if TYPE_CHECKING:
    import optuna

_LEAST_FOR_IMPORTANCE = 4


def trial_recipe(study: Study, datasets: Mapping[str, Dataset]) -> Recipe:
    """What every trial starts from."""
    assert study.tune is not None
    data = study.tune.data or next(iter(study.data))
    return arm_recipe(study, study.arm(study.tune.arm), data, datasets[data])


def check_tune(study: Study, datasets: Mapping[str, Dataset]) -> None:
    """Find what is wrong with a ``[tune]`` table before anything is run.

    Raises:
        RecipeError: a key or value that recipes do not know, a metric that the protocol does not give or that has no
            better side, a fold that does not exist.
        UsageError: Optuna is not installed.
    """
    from hilum.training.setup import check_recipe

    tune, where = study.tune, str(study.file)
    assert tune is not None
    optuna_library()
    base = trial_recipe(study, datasets)
    changes_from(dict.fromkeys(tune.space), where, "tune.space", for_arm=True)
    for key, space in tune.space.items():
        for value in space.samples:
            owner = f"{where}: tune.space"
            try:
                check_recipe(changed(base, {key: value}, owner))
            except HilumError as error:
                raise RecipeError(error.found, where=owner, wanted=error.wanted, fix=error.fix) from None
    check_metric(tune.metric or study.metric, tune.region, study.protocol, base.scheme, f"{where}: tune")
    if not tune.direction and not better(tune.metric or study.metric):
        raise RecipeError(
            f"tune.metric = {tune.metric or study.metric!r} has no better side",
            where=where,
            wanted='direction = "maximize" or "minimize", or another metric',
        )
    wrong = [fold for fold in tune.folds or study.folds if fold >= base.data.folds]
    if wrong:
        raise RecipeError(f"tune.folds {wrong}", where=where, wanted=f"0 to {base.data.folds - 1}")


def open_search(study: Study, datasets: Mapping[str, Dataset], out: Path) -> Search:
    """Reach the storage and begin or go on with the search.

    Raises:
        UsageError: the storage cannot be reached, or holds a search of this name over another space.
    """
    optuna = optuna_library()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tune = study.tune
    assert tune is not None
    url = tune.storage
    if not url:
        (out / "tune").mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{(out / 'tune' / 'optuna.db').absolute()}"
    metric = tune.metric or study.metric
    direction = tune.direction or ("maximize" if better(metric) > 0 else "minimize")
    pruner, name = pruner_of(optuna, tune), study.name
    try:
        found = optuna.create_study(
            storage=url, study_name=name, direction=direction, pruner=pruner, load_if_exists=True
        )
    except Exception as error:  # each kind of storage has errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"the storage of Optuna cannot be reached ({type(error).__name__}: {without_password(reason)})",
            where=f"{study.file}: tune.storage = {without_password(url)!r}",
            wanted="a URL such as sqlite:///tune.db or postgresql://USER:PASSWORD@HOST/NAME",
            fix="start the server, install its driver, or leave storage away: it is then a file in OUT/tune",
        ) from None
    asked = json.dumps([direction, metric, tune.region, space_table(tune), study.protocol], sort_keys=True)
    before = found.user_attrs.get("asked", asked)
    if before != asked:
        raise UsageError(
            f"holds a search named {name!r} over another space, metric or direction",
            where=without_password(url),
            wanted="the [tune] table that it was begun with (trials, startup and pruner may change)",
            fix="give the study another name, or choose another storage or --out",
        )
    found.set_user_attr("asked", asked)
    return Search(study, datasets, out, found, direction, url)


@dataclass
class Search:
    """A search that can be run or gone on with."""

    study: Study
    datasets: Mapping[str, Dataset]
    out: Path
    optuna_study: optuna.study.Study
    direction: str
    url: str

    def __post_init__(self) -> None:
        assert self.study.tune is not None
        self.tune: Tune = self.study.tune
        self.base = trial_recipe(self.study, self.datasets)
        self.data = self.tune.data or next(iter(self.study.data))
        self.folds = self.tune.folds or self.study.folds
        self.lock = threading.Lock()
        self.failed: dict[str, str] = {}
        self.left: list[optuna.trial.FrozenTrial] = []

    def run(self, runner: Runner) -> dict[str, Any]:
        """All trials that are left; what ``study.json`` says of the search.

        Raises:
            TrainingError: a signal asked to stop.
        """
        state = optuna_library().trial.TrialState
        running = self.optuna_study.get_trials(deepcopy=False, states=(state.RUNNING,))
        self.left = [one for one in running if one.user_attrs.get("out") == self._here]
        bar = runner.progress.stage("Trials", self.tune.trials)
        bar.step(min(self.tune.trials, self._begun() - len(self.left)))

        def keep_busy(slot: int) -> None:
            while not runner.stop.is_set():
                with self.lock:
                    trial = self._next()
                if trial is None:
                    return
                if self._go(trial, runner, slot):
                    with self.lock:
                        bar.step(note=f"best {self._best_value()}")

        try:
            runner.threads(keep_busy)
            return self._answer()
        finally:
            engine = getattr(getattr(self.optuna_study._storage, "_backend", None), "engine", None)
            if engine is not None:
                engine.dispose()

    @property
    def _here(self) -> str:
        return str(self.out.absolute())

    def _begun(self) -> int:
        waiting = optuna_library().trial.TrialState.WAITING
        return sum(one.state != waiting for one in self.optuna_study.get_trials(deepcopy=False))

    def _next(self) -> optuna.trial.Trial | None:
        """A trial that was left unfinished here, else a new one, else None."""
        lib = optuna_library()
        if self.left:
            again: optuna.trial.Trial = lib.trial.Trial(self.optuna_study, self.left.pop()._trial_id)
            return again
        begun = self._begun()
        if begun >= self.tune.trials:
            return None
        # seeded anew for each trial: one that goes on after an interruption does not draw the first ones again
        self.optuna_study.sampler = sampler_of(lib, self.tune, begun)
        trial: optuna.trial.Trial = self.optuna_study.ask()
        values = {key: suggest(trial, key, space) for key, space in self.tune.space.items()}
        folder = self._folder(trial.number)
        recipe = replace(changed(self.base, values, f"trial {trial.number}"), name=folder.name)
        write_text(folder / "recipe.toml", to_toml(recipe))
        trial.set_user_attr("values", json.dumps(values))
        trial.set_user_attr("out", self._here)  # last: whoever goes on with it finds its recipe
        return trial

    def _folder(self, number: int) -> Path:
        return self.out / "tune" / f"trial_{number:04d}"

    def _go(self, trial: optuna.trial.Trial, runner: Runner, slot: int) -> bool:
        """Run a trial fold by fold, report, prune; False if it was stopped or is another process's."""
        lib = optuna_library()
        folder, state = self._folder(trial.number), lib.trial.TrialState
        with claim(folder) as held:
            if held is None:
                return False
            recipe = self._recipe(trial)
            scores: list[float] = []
            for step, fold in enumerate(self.folds):
                job = Job(
                    folder.name, self.data, fold, folder / f"fold_{fold}", prepared_folder(self.out, recipe), recipe
                )
                result = runner.run(job, slot)
                if result is None:
                    return False
                try:
                    scores.append(self._score(job, result))
                except TrainingError as error:
                    self.failed[folder.name] = str(error)
                    trial.set_user_attr("error", str(error))
                    self.optuna_study.tell(trial, state=state.FAIL)
                    runner.progress.say(f"{folder.name} failed: {error}")
                    return True
                told = scores[-1] if self.tune.pruner == "wilcoxon" else sum(scores) / len(scores)
                if step not in self._reported(trial):
                    trial.report(told, step)
                if step + 1 < len(self.folds) and trial.should_prune():
                    trial.set_user_attr("fold_scores", scores)
                    self.optuna_study.tell(trial, state=state.PRUNED)
                    runner.progress.say(f"{folder.name}: pruned after fold {fold} ({told:.4f})")
                    return True
            trial.set_user_attr("fold_scores", scores)
            self.optuna_study.tell(trial, sum(scores) / len(scores))
            runner.progress.say(f"{folder.name}: {sum(scores) / len(scores):.4f}")
            return True

    def _recipe(self, trial: optuna.trial.Trial) -> Recipe:
        values = json.loads(trial.user_attrs["values"])
        name = self._folder(trial.number).name
        return replace(changed(self.base, values, f"trial {trial.number}"), name=name)

    def _reported(self, trial: optuna.trial.Trial) -> set[int]:
        frozen = self.optuna_study.get_trials(deepcopy=False)[trial.number]
        return set(frozen.intermediate_values)

    def _score(self, job: Job, result: Mapping[str, Any]) -> float:
        """A fold's score: the metric's mean over held-out cases, of one region or averaged over all that have one.

        Raises:
            TrainingError: the run failed, or no case has a value.
        """
        if result["status"] != "done":
            raise TrainingError(str(result["error"]))
        mean = result["mean"]
        if self.study.protocol != PLAIN:  # by which each run is judged anyway
            pairs, scheme = predictions_of(job), job.recipe.scheme
            if not pairs:
                raise TrainingError("no held-out case could be segmented", where=job.folder)
            patients = {case.name: case.patient for case in self.datasets[self.data].cases}
            place = job.folder / "judged"
            mean = evaluate_pairs(pairs, self.study.protocol, place, scheme=scheme, patients=patients)["mean"]
        metric = self.tune.metric or self.study.metric
        regions = [self.tune.region] if self.tune.region else list(mean)
        found = [mean.get(region, {}).get(metric, {}).get("value") for region in regions]
        known = [float(value) for value in found if value is not None]
        if not known:
            raise TrainingError(f"no held-out case has a {metric}", where=job.folder)
        return sum(known) / len(known)

    def _best_value(self) -> str:
        try:
            return f"{self.optuna_study.best_value:.4f}"
        except ValueError:
            return "none yet"

    def _answer(self) -> dict[str, Any]:
        lib = optuna_library()
        trials = [self._told(one) for one in self.optuna_study.get_trials(deepcopy=False)]
        done = [one for one in trials if one["state"] == "complete"]
        best = None
        if done:
            number = self.optuna_study.best_trial.number
            best = next(one for one in trials if one["number"] == number)
        self.failed |= {one["name"]: one["error"] for one in trials if one["state"] == "fail"}
        answer: dict[str, Any] = plain(
            {
                "trials": trials,
                "best": best,
                "importance": importance_of(lib, self.optuna_study) if len(done) >= _LEAST_FOR_IMPORTANCE else None,
                "metric": self.tune.metric or self.study.metric,
                "region": self.tune.region,
                "direction": self.direction,
                "data": self.data,
                "folds": list(self.folds),
                "sampler": self.tune.sampler,
                "pruner": self.tune.pruner,
                "seed": self.tune.seed,
                "space": space_table(self.tune),
                "storage": without_password(self.url) if self.tune.storage else "OUT/tune/optuna.db (SQLite)",
                "failed": self.failed,
                "optuna": lib.__version__,
                "repeatable": not self.base.training.budget,
            }
        )
        write_json(self.out / "tune" / "trials.json", answer)
        return answer

    def _told(self, one: optuna.trial.FrozenTrial) -> dict[str, Any]:
        folder = self._folder(one.number)
        seconds = one.duration.total_seconds() if one.duration else None
        return {
            "number": one.number,
            "name": folder.name,
            "state": one.state.name.lower(),
            "values": json.loads(one.user_attrs.get("values", "{}")),
            "value": one.value if one.state.name == "COMPLETE" else None,
            "fold_scores": one.user_attrs.get("fold_scores", list(one.intermediate_values.values())),
            "seconds": seconds,
            "recipe": str(folder / "recipe.toml") if one.user_attrs.get("out") == self._here else "",
            "error": one.user_attrs.get("error", ""),
        }


def without_password(text: str) -> str:
    """A URL (or a message that quotes one) that may be shown."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", text)
