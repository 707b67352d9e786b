"""What a study says on the terminal: its plan, its result. Comes in: jobs, numbers. Goes out: lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilum.progress import clock
from hilum.study.design import Study
from hilum.study.jobs import Job


def say_plan(jobs: Sequence[Job], times: Mapping[str, Any], study: Study) -> str:
    """What a dry run prints."""
    done = sum(job.is_done for job in jobs)
    lines = [
        f"{study.name}: {len(jobs)} runs ({done} done already), folds {', '.join(map(str, study.folds))}, "
        f"{study.processes} at a time, scored by protocol {study.protocol}"
    ]
    width = max([len(row["arm"]) for row in times["arms"]] + [4])
    for row in times["arms"]:
        each = clock(row["seconds"]) if row["seconds"] is not None else "unknown"
        lines.append(f"{row['arm']:{width}}  {row['data']}: {row['left']} runs left, {each} each ({row['rests_on']})")
    if times["arms"]:
        total = f"about {clock(times['seconds'])}" if times["seconds"] is not None else "unknown"
        lines.append(f"training in all: {total}; preparing, segmenting and scoring come on top")
    if study.tune is not None:
        tune = study.tune
        keys = ", ".join(tune.space)
        folds = len(tune.folds or study.folds)
        lines.append(
            f"then {tune.trials} trials of at most {folds} folds ({tune.sampler}, pruner {tune.pruner}): {keys}"
        )
    return "\n".join([*lines, "nothing was written: this was a dry run"])


def say_study(answer: Mapping[str, Any], page: Path) -> str:
    """What a finished study prints."""
    lines = []
    metric = answer["metric"]
    for data in answer["data"]:
        rows = [row for row in answer["arms"] if row["data"] == data]
        if len(answer["data"]) > 1 and rows:
            lines.append(f"{data}:")
        width = max([len(row["arm"]) for row in rows] + [4])
        lines += [_row(row, metric, width) for row in rows]
        unequal = [one for one in answer["conditions"].get(data, []) if not one["equal"]]
        lines += [f"not equal: {one['what'].lower()}: {one['text']}" for one in unequal]
    for row in answer["arms"]:
        lines += [f"failed: {row['arm']} on {row['data']}, fold {fold}: {why}" for fold, why in row["failed"].items()]
        lines += [f"failed: {row['arm']} on {row['data']}, {case}: {why}" for case, why in row["failed_cases"].items()]
    lines += _said_search(answer.get("tune"))
    return "\n".join([*lines, f"page: {page}"])


def _row(row: Mapping[str, Any], metric: str, width: int) -> str:
    cells = []
    for region, metrics in row["mean"].items():
        cell = metrics.get(metric) or {}
        if cell.get("value") is not None:
            span = f" ({cell['low']:.3f} to {cell['high']:.3f})" if cell.get("low") is not None else ""
            cells.append(f"{region} {cell['value']:.3f}{span}")
    cost = []
    if row["parameters"] is not None:
        cost.append(f"{row['parameters'] / 1e6:.2f} M parameters")
    if row["train_seconds"] is not None:
        cost.append(f"{row['train_seconds']:.0f} s a run")
    if row["memory_gb"] is not None:
        cost.append(f"{row['memory_gb']:.2f} GiB")
    return f"{row['arm']:{width}}  {metric}: {', '.join(cells) or 'no score'}; {', '.join(cost) or 'no run finished'}"


def _said_search(tuned: Mapping[str, Any] | None) -> list[str]:
    if not tuned:
        return []
    states = [one["state"] for one in tuned["trials"]]
    counts = ", ".join(f"{states.count(word)} {word}" for word in dict.fromkeys(states))
    lines = [f"{len(states)} trials ({counts})"]
    if tuned["best"]:
        values = ", ".join(f"{key} = {value}" for key, value in tuned["best"]["values"].items())
        region = f"{tuned['region']} " if tuned["region"] else ""
        lines.append(f"best {region}{tuned['metric']} {tuned['best']['value']:.4f}, {tuned['best']['name']}: {values}")
        if tuned["best"]["recipe"]:
            lines.append(f"its recipe: {tuned['best']['recipe']}")
    return lines + [f"failed: {name}: {why}" for name, why in tuned["failed"].items()]
