"""RECIPE + DATA SET -> MODEL FOLDER: the training run, from the first case to the last step.

Comes in: a recipe, a data set, a folder RUN. Goes out: ``RUN/model`` (what ``segment`` takes), ``RUN/log.jsonl``,
``RUN/checkpoint``, ``RUN/recipe.toml``, ``RUN/folds.json``, ``RUN/plan.json``, ``RUN/prepared``. Knows no whole-scan
inference: judging the model on the held-out cases is the caller's next step.

A run that was interrupted goes on by itself; on one machine's CPU it then takes the very steps that it would have
taken.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hilum import device as devices
from hilum.config import Recipe, seconds_of, to_table, to_toml, with_labels
from hilum.datasets import Dataset
from hilum.files import write_text
from hilum.progress import SILENT, Progress
from hilum.training.cascade import FIRST, cascade, wants_cascade
from hilum.training.checkpoint import Checkpoint, checkpoint_facts, load_checkpoint, remove_checkpoint
from hilum.training.choosing import as_begun, choose, wants_choice
from hilum.training.only_one import only_one
from hilum.training.optim import check_fold
from hilum.training.ranks import Ranks, together
from hilum.training.run import PLATEAU, Run
from hilum.training.setup import RunSetup, check_recipe, check_same_run, set_up
from hilum.training.stopping import StopSignals
from hilum.training.two_stages import FOLDER, fine_recipe, locator_recipe, wants_locator


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        model: the model folder.
        held_out: names of the cases that were not trained on.
        log: ``RUN/log.jsonl``.
        seconds: time spent training, over all parts of the run.
        steps: steps taken.
        was_finished: True if there was nothing left to do.
        rank: this process's among those of the run; rank 0 goes on to judge.
    """

    model: Path
    held_out: tuple[str, ...]
    log: Path
    seconds: float
    steps: int
    was_finished: bool = False
    rank: int = 0


def train(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    *,
    fold: int | str = 0,
    device: str = "auto",
    resume: bool = True,
    workers: int | None = None,
    progress: Progress = SILENT,
    commit: str = "",
) -> RunResult:
    """Train one fold, or go on with it.

    Args:
        recipe: what a person chose.
        dataset: the cases.
        out: RUN. If it holds a checkpoint of the same recipe, the run goes on; a larger ``steps`` or ``budget`` extends
            it; a finished one is returned at once (its model says the recipe's ``inference`` and ``postprocess``).
        fold: which fold is held out, or "all" to train on every case.
        device: "auto", "cpu", "cuda", "cuda:1".
        resume: False forgets what RUN holds and begins anew.
        workers: cases prepared at once; None decides.
        progress: where to say how far it is.
        commit: version control's name of the code, for the model's card.

    Raises:
        RecipeError: the recipe contradicts itself, the data or the run in this folder.
        DatasetError: no usable cases.
        TrainingError: NaN, too little memory, a damaged checkpoint; or a signal asked to stop (the message says how to
            go on).
        OutputError: the disk is full; the last checkpoint is kept.
    """
    recipe = with_labels(recipe, dataset.scheme)
    out = Path(out)
    check_recipe(recipe)
    check_fold(recipe.training, fold)
    where = devices.choose(device)
    if wants_locator(recipe):
        train(
            locator_recipe(recipe),
            dataset,
            out / FOLDER,
            fold=fold,
            device=device,
            resume=resume,
            workers=workers,
            progress=progress,
            commit=commit,
        )
        recipe = fine_recipe(recipe)
    with together(where.type) as ranks:
        if ranks.world > 1 and where.type == "cuda":
            where = devices.choose(f"cuda:{ranks.local}")
            torch.cuda.set_device(where)
        devices.autocast_dtype(where, recipe.training.precision)  # refuses what the device cannot do
        devices.use_threads(shared_by=ranks.here)
        if not resume and ranks.is_first:
            _forget(out)
        ranks.wait()
        job = Job(recipe, dataset, out, fold, workers, where, ranks, progress if ranks.is_first else SILENT, commit)
        result = (cascade(job) if wants_cascade(recipe) else job).run()
        ranks.wait()
        return result


@dataclass(frozen=True)
class Job:
    """One rank's part of a run; ``make`` gives its set-up where that is more than ``set_up``'s."""

    recipe: Recipe
    dataset: Dataset
    out: Path
    fold: int | str
    workers: int | None
    device: torch.device
    ranks: Ranks
    progress: Progress
    commit: str
    make: Callable[[Job], RunSetup] | None = None

    def run(self) -> RunResult:
        """All that is left to do."""
        out, before = self.out, checkpoint_facts(self.out / "checkpoint")
        recipe = as_begun(self.recipe, before)
        over = before is not None and _is_over(recipe, before)
        if before is not None:
            check_same_run(to_table(recipe), self.fold, before, out)
            done_before = over and bool(before["finished"])  # else the model, if any, is that of an earlier end
            if done_before and _same_use(recipe, before) and (out / "model" / "model.json").is_file():
                done = f"this run is finished ({before['step']} steps)"
                self.progress.say(f"{out}: {done}; more steps or budget extend it")
                return _result(out, before, True, self.ranks.rank)
        with only_one(out) if self.ranks.is_first else nullcontext():
            job = replace(self, recipe=recipe)
            setup = job.make(job) if job.make is not None else job.set_up()
            if wants_choice(recipe):
                recipe = choose(recipe, setup, self.device, self.ranks, self.progress)
                if self.ranks.is_first:
                    write_text(out / "recipe.toml", to_toml(recipe))
            run = Run(recipe, setup, out, str(self.fold), self.device, self.progress, self.commit, self.ranks)
            extended = before is not None and bool(before["finished"]) and not over
            run.begin(self._plateau() if extended else load_checkpoint(out / "checkpoint"))
            if over:  # the weights stay; how they are used changed, or the model's folder is gone
                run.save_checkpoint(finished=True)
            else:
                with StopSignals() as stop:
                    run.go(stop)
            if self.ranks.is_first:
                run.save_model()
        self.ranks.wait()
        facts = checkpoint_facts(out / "checkpoint")
        assert facts is not None
        return _result(out, facts, False, self.ranks.rank)

    def set_up(self) -> RunSetup:
        """Rank 0 prepares what all read."""
        given = (self.recipe, self.dataset, self.out, self.fold, self.workers, self.progress, self.device)
        setup = set_up(*given) if self.ranks.is_first else None
        self.ranks.wait()
        return setup or set_up(*given)

    def _plateau(self) -> Checkpoint | None:
        """Where a finished run goes on that is extended: before its rate fell, where the schedule allows for that."""
        end = load_checkpoint(self.out / "checkpoint")
        kept = load_checkpoint(self.out / PLATEAU) if self.recipe.training.schedule == "plateau" else None
        self.ranks.wait()
        if end is None or kept is None:
            return end
        again = end.facts["step"] - kept.facts["step"]
        self.progress.say(f"Extending: the {again} steps of the falling rate are taken again later")
        if self.ranks.is_first:
            remove_checkpoint(self.out / PLATEAU)  # it is saved anew where the longer run's rate falls
        return kept


def _is_over(recipe: Recipe, facts: dict[str, Any]) -> bool:
    """Whether a run with this checkpoint has nothing left to do: steps taken, budget spent, or patience at its end."""
    worse = int((facts.get("best") or {}).get("worse", 0))
    if int(facts["step"]) >= recipe.training.total_steps or 0 < recipe.training.patience <= worse:
        return True
    budget, before = (seconds_of(text) for text in (recipe.training.budget, facts["recipe"]["training"]["budget"]))
    return bool(facts["finished"]) and budget is not None and before is not None and budget <= before


def _same_use(recipe: Recipe, facts: dict[str, Any]) -> bool:
    """Whether the model of this checkpoint is to be used as the recipe says now."""
    now = to_table(recipe)
    return all(facts["recipe"][key] == now[key] for key in ("inference", "postprocess"))


def _forget(out: Path) -> None:
    for first in (out / FIRST).glob("*/checkpoint"):
        _forget(first.parent)
    remove_checkpoint(out / "checkpoint")
    remove_checkpoint(out / PLATEAU)
    for name in ("log.jsonl", "plan.json", "fingerprint.json", "folds.json", "mlflow_run.txt"):
        (out / name).unlink(missing_ok=True)
    if (out / "model" / "model.json").is_file():
        shutil.rmtree(out / "model")


def _result(out: Path, facts: dict[str, Any], was_finished: bool, rank: int) -> RunResult:
    return RunResult(
        out / "model",
        tuple(facts["held_out"]),
        out / "log.jsonl",
        float(facts["seconds"]),
        int(facts["step"]),
        was_finished,
        rank,
    )
