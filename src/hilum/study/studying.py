"""STUDY -> OUT: plan it, run or resume it, evaluate, compare, write the page.

    OUT/study.toml        as it was given
    OUT/study.json        every number of the page; OUT/study.csv the arms' rows
    OUT/report.html       the page; OUT/figures/ its charts at paper quality
    OUT/sides             see ``sides``
    OUT/runs, prepared    see ``jobs``;  OUT/evaluations, comparison: see ``measuring``;  OUT/tune: see ``tuning``

Comes in: a ``Study``, a folder. Goes out: the folder, and an answer for the terminal. A study that was interrupted goes
on with the same command; arms, folds, data sets and trials may be added, what was run may not be changed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hilum import __version__
from hilum.config import Recipe, to_table
from hilum.datasets import Dataset, open_dataset
from hilum.errors import HilumError, RecipeError, UsageError
from hilum.files import plain, write_json, write_text
from hilum.pages.study import study_report
from hilum.progress import SILENT, Progress
from hilum.runs import commit
from hilum.study.design import Study
from hilum.study.fairness import conditions
from hilum.study.forecast import forecast
from hilum.study.jobs import Job, arm_jobs, arm_recipe, claim, differences, prepared_folder, read_result
from hilum.study.measuring import arm_row, check_metric, compare_arms, evaluate_arm, log_of
from hilum.study.running import Runner, results_of
from hilum.study.saying import say_plan, say_study
from hilum.study.sides import with_sides
from hilum.study.tuning import check_tune, open_search, trial_recipe


@dataclass(frozen=True)
class Plan:
    """What a study will do.

    Attributes:
        study: what was asked.
        out: where.
        datasets: name -> what is there.
        recipes: (data, arm) -> the arm's whole recipe.
        jobs: every run, in order.
    """

    study: Study
    out: Path
    datasets: Mapping[str, Dataset]
    recipes: Mapping[tuple[str, str], Recipe]
    jobs: tuple[Job, ...]

    def of(self, data: str, arm: str = "") -> list[Job]:
        """The jobs of a data set, or of one of its arms."""
        return [job for job in self.jobs if job.data == data and (not arm or job.arm == arm)]


def plan_study(study: Study, out: Path) -> Plan:
    """Check everything that can be checked before anything is run.

    Raises:
        UsageError, RecipeError: no data, a fold that does not exist, an unknown key, network, protocol or metric; runs
            in the folder that were begun with another recipe (named, with what changed).
        DatasetError: no usable cases.
    """
    from hilum.training.setup import check_recipe

    where = str(study.file)
    if not study.data:
        fix = 'add data = "folder=/data/ct" to the study, or --data folder=/data/ct'
        raise UsageError("does not say where the data are", where=where, wanted="a data set and its path", fix=fix)
    datasets = {name: open_dataset(*kind_path(text)) for name, text in study.data.items()}
    recipes = {
        (data, arm.name): arm_recipe(study, arm, data, datasets[data]) for data in datasets for arm in study.arms
    }
    for (_, arm), recipe in recipes.items():
        try:
            check_recipe(recipe)
        except HilumError as error:
            owner = f"{where}: arms.{arm}"
            raise RecipeError(error.found, where=owner, wanted=error.wanted, fix=error.fix) from None
        _check_folds(study.folds, recipe, where)
        check_metric(study.metric, "", study.protocol, recipe.scheme, where)
    jobs = [
        job for (data, arm), recipe in recipes.items() for job in arm_jobs(study, out, study.arm(arm), data, recipe)
    ]
    if study.tune is not None:
        check_tune(study, datasets)
    _check_same(jobs, out)
    return Plan(study, out, datasets, recipes, tuple(jobs))


def dry_run(study: Study, out: Path, device: str = "auto") -> dict[str, Any]:
    """The plan and its forecast of time; nothing is written.

    Returns:
        ``{"runs", "forecast", "text"}``.
    """
    study = with_sides(study, out, write=False)
    plan = plan_study(study, out)
    times = forecast(plan.jobs, plan.datasets, study, device)
    runs = [
        {"arm": job.arm, "data": job.data, "fold": job.fold, "folder": str(job.folder), "done": job.is_done}
        for job in plan.jobs
    ]
    return {"runs": runs, "forecast": times, "text": say_plan(plan.jobs, times, study)}


def run_study(
    study: Study, out: Path, *, device: str = "auto", progress: Progress = SILENT, runner: Runner | None = None
) -> dict[str, Any]:
    """Run or resume a study, evaluate, compare, tune, and write its page.

    Args:
        study: what to do.
        out: its folder.
        device: "auto", "cpu", "cuda", "cuda:1".
        progress: where to tell.
        runner: how runs are started; the usual way if None.

    Returns:
        What ``OUT/study.json`` holds, with ``"text"`` and ``"exit_code"`` (1 if a run failed).

    Raises:
        UsageError, RecipeError, DatasetError: as for ``plan_study``.
        TrainingError: a signal asked to stop; the message says how to go on.
    """
    plan = plan_study(with_sides(study, out, write=False), out)  # what is wrong is said before anything is written
    study = with_sides(study, out, progress)
    if study is not plan.study:
        plan = plan_study(study, out)
    runner = runner or Runner(device, study.processes, progress)
    search = open_search(study, plan.datasets, out) if study.tune is not None else None  # known now, not after hours
    write_text(out / "study.toml", study.file.read_text(encoding="utf-8"))
    failed = _prepare(plan, runner)
    runner.over([job for job in plan.jobs if job.prepared not in failed])
    for job in plan.jobs:
        if job.prepared in failed:
            _mark_failed(job, failed[job.prepared])
    tuned = search.run(runner) if search is not None else None
    return measure(plan, tuned, progress)


def measure(plan: Plan, tuned: dict[str, Any] | None, progress: Progress = SILENT) -> dict[str, Any]:
    """Evaluate and compare what has been run, and write ``study.json``, ``study.csv`` and the page."""
    study, out = plan.study, plan.out
    rows, fair, compared, curves = [], {}, {}, []
    for data, dataset in plan.datasets.items():
        mine, cases = [], {}
        for arm in study.arms:
            jobs = plan.of(data, arm.name)
            scores = evaluate_arm(jobs, dataset, study.protocol, out / "evaluations" / data / arm.name, progress)
            mine.append({**arm_row(jobs, scores), "changes": arm.changes, "about": arm.recipe})
            if scores:
                cases[arm.name] = sorted(scores["cases"])
            curves += [
                {"arm": job.arm, "data": data, "fold": job.fold, "epochs": log_of(job)["epochs"]} for job in jobs
            ]
        done = {job: found for job, found in results_of(plan.of(data)).items() if found["status"] == "done"}
        fair[data] = conditions(done, study.protocol, study.processes, cases)
        place = out / "comparison" / data
        compared[data] = compare_arms(mine, out / "evaluations" / data, place, len(study.folds))
        rows += mine
    answer: dict[str, Any] = plain(
        {
            "format": 1,
            "name": study.name,
            "description": study.description,
            "hilum": __version__,
            "commit": commit(),
            "data": dict(study.data),
            "cases": {name: len(dataset.labelled) for name, dataset in plan.datasets.items()},
            "recipe": study.recipe,
            "folds": list(study.folds),
            "budget": study.budget,
            "steps": study.steps,
            "protocol": study.protocol,
            "metric": study.metric,
            "processes": study.processes,
            "settings": study.settings,
            "arms": rows,
            "conditions": fair,
            "comparisons": compared,
            "curves": curves,
            "tune": tuned,
        }
    )
    write_json(out / "study.json", answer)
    write_text(out / "study.csv", _csv(rows))
    page = study_report(out)
    bad = any(row["failed"] or row["failed_cases"] for row in rows) or bool(tuned and tuned["failed"])
    return {**answer, "text": say_study(answer, page), "exit_code": 1 if bad else 0}


def kind_path(text: str) -> tuple[str, str]:
    """``KIND=PATH`` in two."""
    kind, _, path = text.partition("=")
    return kind, path


def _prepare(plan: Plan, runner: Runner) -> dict[Path, str]:
    """Prepare the cases, once for all runs that want them alike; folder -> why, where it failed."""
    wanted = {job.prepared: job.recipe for job in plan.jobs}
    if plan.study.tune is not None:
        recipe = trial_recipe(plan.study, plan.datasets)
        wanted.setdefault(prepared_folder(plan.out, recipe), recipe)
    failed: dict[Path, str] = {}
    for folder, recipe in wanted.items():
        shared = Recipe(name="prepared", labels=recipe.labels, data=recipe.data, prepare=recipe.prepare)
        job = Job("prepared cases", recipe.data.dataset, plan.study.folds[0], folder, folder, shared)
        if not job.is_done:
            runner.progress.say(f"Preparing the cases of {recipe.data.path}, once for all runs")
        result = None
        while result is None and not runner.stop.is_set():
            found: list[dict[str, Any] | None] = []

            def work(slot: int, job: Job = job, found: list[dict[str, Any] | None] = found) -> None:
                if slot == 0:
                    found.append(runner.run(job, kind="prepare"))

            replace(runner, processes=1).threads(work)
            result = found[0]
            if result is None:
                runner.stop.wait(1.0)  # another process of this study prepares them
        if result and result["status"] != "done":
            failed[folder] = str(result["error"])
            runner.progress.say(f"failed: {failed[folder]}")
    return failed


def _mark_failed(job: Job, why: str) -> None:
    with claim(job.folder) as held:
        if held is not None and not job.is_done:
            told = {"format": 1, "key": job.key, "recipe": to_table(job.recipe), "fold": job.fold}
            write_json(job.folder / "result.json", plain({**told, "status": "failed", "error": why}))


def _check_folds(folds: Sequence[int], recipe: Recipe, where: str) -> None:
    wrong = [fold for fold in folds if fold >= recipe.data.folds]
    if wrong:
        raise RecipeError(
            f"folds {wrong}",
            where=where,
            wanted=f"0 to {recipe.data.folds - 1}: the recipe splits into {recipe.data.folds}",
            fix=f'add [settings] "data.folds" = {max(folds) + 1}',
        )


def _check_same(jobs: Sequence[Job], out: Path) -> None:
    """Refuse to go on with arms that were begun with another recipe, naming them and what changed."""
    told = []
    for job in jobs:
        found = read_result(job.folder)
        if found is None or job.is_of(found):
            continue
        changes = [
            text
            for text in differences(found["recipe"], to_table(job.recipe))
            if not text.startswith(("name ", "description ", "data.path "))
        ]
        told.append(f"{job.arm} on {job.data} ({'; '.join(changes[:3]) or 'by another version of hilum'})")
    if told:
        some = list(dict.fromkeys(told))
        raise RecipeError(
            f"arms were run differently before: {', '.join(some[:4])}",
            where=out,
            wanted="the recipes that those runs were made with; arms, folds and trials may be added",
            fix="give a changed arm a new name, delete its folder under runs/, or choose another --out",
        )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line an arm, region and metric, with what the arm cost."""
    costs = ("network", "parameters", "train_seconds", "memory_gb", "peak_memory_gb", "segment_seconds")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("data", "arm", *costs, "region", "metric", "value", "low", "high", "n"))
    for row in rows:
        head = [row["data"], row["arm"], *("" if row[key] is None else row[key] for key in costs)]
        for region, metrics in row["mean"].items():
            for metric, cell in metrics.items():
                values = ("" if cell.get(key) is None else cell[key] for key in ("value", "low", "high", "n"))
                writer.writerow([*head, region, metric, *values])
    return text.getvalue()
