"""RUNS -> what an arm costs and what it reaches: one evaluator over the held-out cases of all its folds.

    OUT/evaluations/<data>/<arm>/      scores.json, scores.csv, report.html over all folds
    OUT/comparison/<data>/             comparison.json, comparison.csv: the arms, paired by case

Comes in: jobs with their results. Goes out: those folders, and rows of numbers. It trains nothing and segments nothing.
"""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum.datasets import Dataset
from hilum.errors import HilumError, RecipeError
from hilum.files import read_json, write_json
from hilum.judge.compare import compare
from hilum.judge.evaluate import evaluate_pairs, score_case
from hilum.labels import LabelScheme
from hilum.pages.comparison import comparison_report
from hilum.pages.curves import read_log
from hilum.pages.evaluation import evaluation_report
from hilum.progress import SILENT, Progress
from hilum.scans import read_labels, read_scan
from hilum.study.jobs import Job
from hilum.volume import Volume


def metrics_of(protocol: str, scheme: LabelScheme) -> dict[str, list[str]]:
    """Region -> metrics that a protocol gives for a scheme, told by scoring a few made voxels."""
    voxels = np.zeros((6, 6, 6), np.uint8)
    for place, value in enumerate(scheme.values):
        voxels[1 + place % 4, 1:5, 1:5] = value
    made = Volume(voxels, np.eye(4), "made")
    return {region: list(metrics) for region, metrics in score_case(made, made, protocol, scheme).items()}


def check_metric(metric: str, region: str, protocol: str, scheme: LabelScheme, where: str) -> None:
    """Refuse a metric or region that the protocol does not give, before anything is run.

    Raises:
        RecipeError: naming the nearest, and all.
        UsageError: no such protocol.
    """
    given = metrics_of(protocol, scheme)
    known = list(dict.fromkeys(name for names in given.values() for name in names))
    for word, value, there in (("metric", metric, known), ("region", region, list(given))):
        if value and value not in there:
            near = difflib.get_close_matches(value, there, 1)
            raise RecipeError(
                f"{word} = {value!r}",
                where=where,
                wanted=f"one that protocol {protocol!r} gives: {', '.join(there[:40])}",
                fix=f"did you mean {near[0]!r}?" if near else None,
            )


def evaluate_arm(
    jobs: Sequence[Job], dataset: Dataset, protocol: str, out: Path, progress: Progress = SILENT
) -> dict[str, Any] | None:
    """Score all held-out cases of an arm's finished folds together; None if no fold is finished.

    What was scored before from the same runs by the same protocol is taken as it is.
    """
    done = [job for job in jobs if job.is_done]
    pairs = {name: paths for job in done for name, paths in predictions_of(job).items()}
    if not pairs:
        return None
    record = {"protocol": protocol, "runs": {str(job.fold): job.key for job in done}, "cases": sorted(pairs)}
    try:
        if read_json(out / "source.json") == record:
            known: dict[str, Any] = read_json(out / "scores.json")
            return known
    except HilumError:
        pass
    (out / "source.json").unlink(missing_ok=True)
    scheme = jobs[0].recipe.scheme
    patients = {case.name: case.patient for case in dataset.cases}
    runs = [job.folder / "validation" for job in done]  # each run has measured its own cases
    scores = evaluate_pairs(pairs, protocol, out, scheme=scheme, progress=progress, patients=patients, measured=runs)
    images = {case.name: case.image for case in dataset.cases}

    def pictures(name: str) -> tuple[Volume | None, Volume, Volume]:
        truth, prediction = pairs[name]
        return read_scan(images[name]), read_labels(truth, scheme), read_labels(prediction, scheme)

    evaluation_report(out, pictures=pictures, scheme=scheme)
    write_json(out / "source.json", record)
    return scores


def predictions_of(job: Job) -> dict[str, tuple[Path, Path]]:
    """Case -> (truth, prediction) of a run's held-out cases that were segmented."""
    result, folder = job.result() or {}, job.folder / "validation"
    pairs = {n: (folder / "truth" / f"{n}.nii.gz", folder / "predictions" / f"{n}.nii.gz") for n in result["held_out"]}
    return {name: pair for name, pair in pairs.items() if pair[0].is_file() and pair[1].is_file()}


def arm_row(jobs: Sequence[Job], scores: Mapping[str, Any] | None) -> dict[str, Any]:
    """What an arm reached and what it cost.

    Returns:
        ``mean`` as in ``scores.json``; ``parameters``; ``steps``; ``train_seconds`` (mean of its runs, with ``_least``
        and ``_most``); ``memory_gb`` (the highest of its runs while training: of the GPU where there is one, else of
        the process), ``peak_memory_gb`` (of the process over the whole run); ``segment_seconds`` (median over cases);
        ``failed``: fold -> why; ``failed_cases``.
    """
    results = {job: found for job in jobs if (found := job.result()) is not None}
    done = {job: found for job, found in results.items() if found["status"] == "done"}
    failed = {str(job.fold): found.get("error", "") for job, found in results.items() if found["status"] != "done"}
    seconds = [found["train_seconds"] for found in done.values()]
    facts = [log_of(job) for job in done]
    per_case = [s for job in done for s in _segment_seconds(job)]
    return {
        "arm": jobs[0].arm,
        "data": jobs[0].data,
        "network": jobs[0].recipe.network.name,
        "folds": [job.fold for job in done],
        "failed": failed,
        "failed_cases": {n: why for found in done.values() for n, why in found["failed_cases"].items()},
        "cases": len(scores["cases"]) if scores else 0,
        "mean": scores["mean"] if scores else {},
        "parameters": next((fact["facts"].get("parameters") for fact in facts if fact["facts"]), None),
        "steps": sorted({fact["steps"] for fact in facts}),
        "train_seconds": statistics.fmean(seconds) if seconds else None,
        "train_seconds_least": min(seconds, default=None),
        "train_seconds_most": max(seconds, default=None),
        "memory_gb": _highest(found.get("gpu_memory_gb") or found.get("train_memory_gb") for found in done.values()),
        "peak_memory_gb": _highest(found.get("peak_memory_gb") for found in done.values()),
        "start_memory_gb": _highest(found.get("start_memory_gb") for found in done.values()),
        "segment_seconds": statistics.median(per_case) if per_case else None,
        "runs": {str(job.fold): str(job.folder) for job in jobs},
    }


def compare_arms(rows: Sequence[Mapping[str, Any]], evaluations: Path, out: Path, folds: int) -> dict[str, Any] | None:
    """Paired comparison of all arms that ran on every fold; None for fewer than two."""
    whole = [row["arm"] for row in rows if len(row["folds"]) == folds and row["cases"]]
    if len(whole) < 2:
        return None
    found = compare([evaluations / arm for arm in whole], out)
    comparison_report(out)
    return found


def log_of(job: Job) -> dict[str, Any]:
    """Facts, last step and curves of a run's log."""
    lines = read_log(job.folder / "log.jsonl")
    epochs = [line for line in lines if "epoch" in line]
    facts: dict[str, Any] = next((line["facts"] for line in lines if isinstance(line.get("facts"), dict)), {})
    return {"facts": facts, "steps": epochs[-1]["step"] if epochs else 0, "epochs": epochs}


def _segment_seconds(job: Job) -> list[float]:
    try:
        cases = read_json(job.folder / "validation" / "predictions.json")["cases"]
        return [float(case["seconds"]) for case in cases.values()]
    except (HilumError, KeyError, TypeError, AttributeError):
        return []


def _highest(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
