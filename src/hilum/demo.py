"""The main job on synthetic CT, start to report: what ``hilum demo`` does, and where the shipped model comes from.

    OUT/phantoms/     synthetic patients with exact labels
    OUT/run/          the training run: plan, log, checkpoint, model
    OUT/results/      the held-out patients as ``hilum segment`` leaves them: labels, measurements, a report each
    OUT/evaluation/   scores.json, scores.csv, report.html

Every stage is the real one, called as any user's data would call it; nothing is pre-computed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilum import __version__
from hilum.config import read_recipe
from hilum.datasets import open_dataset
from hilum.errors import OutputError
from hilum.files import read_json, write_json
from hilum.pages.run import run_report
from hilum.phantom import write_set
from hilum.pipeline import segment
from hilum.progress import SILENT, Progress, clock
from hilum.runs import commit, judge, mean_table
from hilum.training.loop import train

CASES = 40


def run_demo(
    out: Path,
    *,
    seed: int = 1,
    cases: int = CASES,
    device: str = "auto",
    overrides: Sequence[str] = (),
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Make synthetic patients, train on most of them, segment, score and draw the rest.

    Args:
        out: the folder; a demo that was interrupted goes on in it.
        seed: of the patients.
        cases: how many patients; one in five is held out.
        device: "auto", "cpu", "cuda".
        overrides: ``section.key=value`` for the recipe, for tests that cannot wait.
        progress: where to tell.

    Returns:
        ``{"out", "model", "scores", "failed", "seconds", "text"}``; ``failed`` says which held-out cases have no score.

    Raises:
        OutputError: the folder holds a demo of another seed.
    """
    begin = time.monotonic()
    _claim(out, seed)
    write_set(out / "phantoms", cases, seed, small=True, progress=progress)
    recipe = read_recipe("demo", [f"data.path={json.dumps(str(out / 'phantoms'), ensure_ascii=False)}", *overrides])
    dataset = open_dataset(recipe.data.dataset, Path(recipe.data.path))
    run = train(recipe, dataset, out / "run", device=device, progress=progress, commit=commit())
    held_out = [case for case in dataset.cases if case.name in set(run.held_out)]
    segment([case.image for case in held_out], run.model, out / "results", device=device, progress=progress)
    maps = {case.name: out / "results" / case.name / "labels.nii.gz" for case in held_out}
    scores = judge(held_out, maps, out / "evaluation", recipe.scheme, run.log, progress)
    run_report(out / "run")
    seconds = time.monotonic() - begin
    answer = {"out": str(out), "model": str(run.model), "scores": str(out / "evaluation" / "scores.json")}
    told = {"failed": dict(scores.get("failures", {})), "seconds": round(seconds, 1)}
    return {**answer, **told, "text": _say(scores, out, run.model, seconds)}


def _claim(out: Path, seed: int) -> None:
    """One folder holds one demo; ``demo.json`` says which."""
    record = out / "demo.json"
    if record.is_file():
        before = read_json(record).get("seed")
        if before != seed:
            raise OutputError(
                f"holds a demo with seed {before}", where=out, wanted=f"seed {seed}", fix="choose another --out folder"
            )
    elif out.is_dir() and any(out.iterdir()):
        raise OutputError("holds other files", where=out, wanted="a new folder", fix="choose another --out folder")
    write_json(record, {"seed": seed, "hilum": __version__, "commit": commit()})


def _say(scores: Mapping[str, Any], out: Path, model: Path, seconds: float) -> str:
    case = next(iter(scores["cases"]), "")
    return "\n".join(
        [
            f"Done in {clock(seconds)}. Synthetic patients that the model never saw ({len(scores['cases'])}):",
            mean_table(scores["mean"]),
            f"(mean, 95 % interval by patient; empty regions: {scores['empty_policy']})",
            *(f"failed: {name}: {why}" for name, why in scores.get("failures", {}).items()),
            "",
            f"Look at  {out / 'evaluation' / 'report.html'}  truth against prediction, curves, numbers",
            f"         {out / 'results' / case / 'report.html'}  what a clinician would get for one scan",
            f"         {out / 'run' / 'report.html'}  the training run",
            "Next     your own scan:    hilum segment SCAN --model demo --out results   (it knows synthetic CT only)",
            "         your own data:    hilum train default --data folder=DIR --out runs/mine --budget 2h",
            f"         this very model:  hilum segment SCAN --model {model} --out results",
        ]
    )
