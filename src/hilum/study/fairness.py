"""WERE THE CONDITIONS EQUAL? What must be alike for arms to be compared, looked up in what the runs left.

Comes in: jobs with results. Goes out: conditions, each with whether it held and a sentence. It judges no score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hilum.errors import HilumError
from hilum.files import read_json
from hilum.study.jobs import Job

Done = Mapping[Job, Mapping[str, Any]]


@dataclass(frozen=True)
class Condition:
    """One thing that was to be equal.

    Attributes:
        what: a word or two.
        equal: whether it was.
        text: what was found.
    """

    what: str
    equal: bool
    text: str


def conditions(done: Done, protocol: str, processes: int, cases: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """All conditions of one data set.

    Args:
        done: jobs that ran to their end, with their results.
        protocol: the one evaluator.
        processes: runs at a time.
        cases: arm -> names of its scored cases.
    """
    if not done:
        return []
    found = [
        _folds(done),
        _cases(cases),
        Condition("Evaluator", True, f"protocol {protocol} for all, on the scans' own grids"),
        _alike(done, "Budget", _limits),
        _alike(done, "Seed", lambda job, _: f"seed {job.recipe.training.seed}"),
        _alike(done, "Patches", lambda job, _: _plan(job)),
        _alike(done, "Precision", lambda job, _: job.recipe.training.precision),
        _alike(done, "Machine", lambda _, r: f"{r.get('device')}; {r.get('threads')} threads for PyTorch"),
        _alike(done, "Software", lambda _, r: f"hilum {r.get('hilum')} {r.get('commit') or ''}".strip()),
    ]
    if processes > 1:
        text = f"{processes} runs at a time shared the machine: seconds are longer than those of a run alone"
        found.append(Condition("Alone on the machine", False, text))
    return [asdict(one) for one in found]


def folds_of(job: Job) -> Any:
    """The folds that a run was made with, or None."""
    try:
        return read_json(job.folder / "folds.json")
    except HilumError:
        return None


def _folds(done: Done) -> Condition:
    splits = {str(folds_of(job)) for job in done}
    numbers = {arm: sorted(job.fold for job in done if job.arm == arm) for arm in dict.fromkeys(j.arm for j in done)}
    if len(splits) > 1:
        return Condition("Folds", False, "the runs were split differently (their folds.json differ)")
    if len({tuple(x) for x in numbers.values()}) > 1:
        return Condition("Folds", False, f"not every arm has every fold: {_said(numbers)}")
    many = next(iter(numbers.values()))
    return Condition("Folds", True, f"the same split for all; held out {', '.join(f'fold {k}' for k in many)}")


def _cases(cases: Mapping[str, Sequence[str]]) -> Condition:
    sets = {frozenset(names) for names in cases.values()}
    if len(sets) == 1:
        return Condition("Cases", True, f"the same {len(next(iter(sets)))} held-out cases scored for all")
    return Condition("Cases", False, f"different cases were scored: {_said({a: len(n) for a, n in cases.items()})}")


def _alike(done: Done, what: str, look: Callable[[Job, Mapping[str, Any]], str]) -> Condition:
    seen: dict[str, list[str]] = {}
    for job, result in done.items():
        seen.setdefault(look(job, result), [])
        if job.arm not in seen[look(job, result)]:
            seen[look(job, result)].append(job.arm)
    if len(seen) == 1:
        return Condition(what, True, f"{next(iter(seen))} for all")
    return Condition(what, False, "; ".join(f"{text} ({', '.join(arms)})" for text, arms in seen.items()))


def _limits(job: Job, _: Mapping[str, Any]) -> str:
    options = job.recipe.training
    return f"{options.budget} or {options.total_steps} steps" if options.budget else f"{options.total_steps} steps"


def _plan(job: Job) -> str:
    try:
        plan = read_json(job.folder / "plan.json")
        sizes = " × ".join(map(str, plan["patch"]))
        spacing = " × ".join(f"{s:g}" for s in plan["spacing_mm"])
        return f"{plan['batch']} of {sizes} voxels at {spacing} mm"
    except (HilumError, KeyError, TypeError):
        return "unknown"


def _said(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in table.items())
