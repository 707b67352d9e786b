"""HOW LONG WILL IT TAKE? Seconds for each run, before any of them is begun.

Comes in: jobs. Goes out: seconds of training, and what they rest on: a budget, earlier runs of the same arm, or a few
steps measured now on random voxels with the plan that the first cases give. Writes nothing. Segmenting and scoring come
on top.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from hilum.config import Recipe, seconds_of
from hilum.datasets import Dataset
from hilum.errors import HilumError
from hilum.study.design import Study
from hilum.study.jobs import Job

_CASES, _STEPS = 3, 2


def forecast(jobs: Sequence[Job], datasets: Mapping[str, Dataset], study: Study, device: str) -> dict[str, Any]:
    """Seconds of training for what is left to do.

    Returns:
        ``arms``: a row for each data set and arm with ``seconds`` of one run (None: not known), ``rests_on`` and
        ``left`` runs; ``seconds``: of everything at ``study.processes`` at a time, None if an arm's are not known.
    """
    rows: list[dict[str, Any]] = []
    plans: dict[str, Any] = {}
    for data, arm in dict.fromkeys((job.data, job.arm) for job in jobs):
        mine = [job for job in jobs if (job.data, job.arm) == (data, arm)]
        seconds, rests_on = _one(mine, datasets[data], device, plans)
        rows.append(
            {
                "data": data,
                "arm": arm,
                "seconds": seconds,
                "rests_on": rests_on,
                "left": sum(not job.is_done for job in mine),
            }
        )
    known = [row["seconds"] * row["left"] for row in rows if row["seconds"] is not None]
    total = sum(known) / study.processes if len(known) == len(rows) else None
    return {"arms": rows, "seconds": total}


def _one(jobs: Sequence[Job], dataset: Dataset, device: str, plans: dict[str, Any]) -> tuple[float | None, str]:
    done = [job.result() or {} for job in jobs if job.is_done]
    if done:
        seconds = [float(found["train_seconds"]) for found in done]
        return sum(seconds) / len(seconds), f"{len(done)} finished run{'s' if len(done) > 1 else ''}"
    recipe = jobs[0].recipe
    budget, steps = seconds_of(recipe.training.budget), recipe.training.total_steps
    try:
        place = str(jobs[0].prepared)
        if place not in plans:
            plans[place] = _plan(recipe, dataset)
        step = _seconds_a_step(recipe, plans[place], device)
    except (HilumError, RuntimeError) as error:
        return budget, f"the budget (no step could be measured: {error})" if budget else f"nothing: {error}"
    measured = f"{steps} steps of {step:.2f} s, {_STEPS} measured now"
    if budget is not None and budget < steps * step:
        return budget, f"the budget: about {budget / step:.0f} steps of {step:.2f} s"
    return steps * step, measured


def _plan(recipe: Recipe, dataset: Dataset) -> Any:
    """The plan that the first few cases give: their sizes stand for all."""
    from hilum.prepare.fingerprint import fingerprint
    from hilum.prepare.plan import make_plan

    cases = list(dataset.labelled[:_CASES])
    return make_plan(fingerprint(cases, recipe.scheme, 0), recipe.prepare, recipe.scheme)


def _seconds_a_step(recipe: Recipe, plan: Any, device: str) -> float:
    """A step forward and back on random voxels; the first, in which everything is set up, does not count."""
    import torch

    from hilum import device as devices
    from hilum.training.setup import network_spec

    where = devices.choose(device)
    devices.use_threads()
    spec = network_spec(recipe, plan, recipe.scheme)
    network = spec.build().to(where).train()
    images = torch.randn(plan.batch, plan.channels, *plan.patch[-plan.dims :], device=where)
    begin = 0.0
    for turn in range(_STEPS + 1):
        if turn == 1:
            _wait(where)
            begin = time.perf_counter()
        with devices.autocast(where, recipe.training.precision):
            logits = network(images)
        parts = logits if isinstance(logits, list | tuple) else [logits]
        torch.stack([part.float().square().mean() for part in parts]).sum().backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)
    _wait(where)
    return (time.perf_counter() - begin) / _STEPS


def _wait(where: Any) -> None:
    if where.type == "cuda":
        import torch

        torch.cuda.synchronize(where)
