"""Whole runs: train and judge; score and draw; draw again.

Comes in: a recipe, folders. Goes out: the run's or evaluation's folder, complete with its pages, and a sentence for the
terminal. It only joins stages that know nothing of each other; serving scans (``pipeline``) does not come through here.
Scoring and drawing need no PyTorch, so that training and prediction are imported where they begin (3 of 4 seconds).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilum.config import Recipe, with_labels
from hilum.datasets import CaseRef
from hilum.errors import InputError, UsageError
from hilum.files import read_json
from hilum.judge.compare import compare
from hilum.judge.evaluate import Missing, evaluate, evaluate_pairs
from hilum.judge.scoring import ScoreOptions
from hilum.judge.suspects import suspects_text, write_suspects
from hilum.judge.trained import read_trained, trained_by
from hilum.labels import LabelScheme, scheme_from
from hilum.pages.comparison import comparison_report
from hilum.pages.evaluation import evaluation_report, read_scores
from hilum.pages.loading import stored_pictures
from hilum.pages.run import run_report
from hilum.progress import SILENT, Progress, clock
from hilum.scans import read_labels, read_scan, write_labels
from hilum.survey.selecting import open_chosen
from hilum.volume import Volume

PLAIN = "plain"
TELLING = ("dice", "surface_dice", "iou", "precision", "sensitivity", "medpy_hd95_mm", "lesion_f1")  # for the terminal


def train_and_validate(
    recipe: Recipe,
    out: Path,
    *,
    fold: str = "0",
    device: str = "auto",
    resume: bool = True,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train one fold, segment its held-out cases by full inference, score them, draw the pages.

    Args:
        recipe: names the data set and its path.
        out: the run's folder.
        fold: "0".."N-1", or "all" to learn from every case (nothing is then left to judge on).
        device: "auto", "cpu", "cuda".
        resume: go on from the folder's checkpoint.
        progress: where to tell.

    Returns:
        ``{"model", "held_out", "mean", "failed", "seconds", "text"}``; ``mean`` as in ``scores.json``, empty for fold
        "all"; ``failed`` says why held-out cases are not in it.

    Raises:
        UsageError: no data set named, or a fold that is no number.
    """
    from hilum.pipeline import predict_cases
    from hilum.training.loop import train

    if not recipe.data.dataset or not recipe.data.path:
        raise UsageError(
            f"recipe {recipe.name!r} does not say where the data are",
            wanted="a data set and its path",
            fix="add --data NAME=PATH, e.g. --data folder=/data/ct",
        )
    if fold != "all" and not fold.isdigit():
        raise UsageError(f"--fold {fold!r}", wanted="a number from 0, or 'all'")
    if out.resolve() == Path(recipe.data.path).expanduser().resolve():
        raise UsageError(f"--out {out} is the data set itself", wanted="a folder of its own", fix="add a name to --out")
    dataset = open_chosen(recipe, out, progress)
    if recipe.data.split_sides:
        from hilum.survey.split import split_dataset

        known = recipe.scheme if recipe.labels else None
        dataset, _ = split_dataset(dataset, out / "sides", progress=progress, scheme=known)
        recipe = replace(recipe, labels="")
    recipe = with_labels(recipe, dataset.scheme)
    place: int | str = fold if fold == "all" else int(fold)
    run = train(recipe, dataset, out, fold=place, device=device, resume=resume, progress=progress, commit=commit())
    answer: dict[str, Any] = {"model": str(run.model), "held_out": [*run.held_out], "mean": {}, "failed": {}}
    answer["seconds"] = run.seconds
    if run.rank:  # rank 0 judges and tells
        return answer | {"text": ""}
    if run.held_out:
        cases = [case for case in dataset.cases if case.name in set(run.held_out)]
        predicted = predict_cases(run.model, cases, out / "validation", device=device, progress=progress)
        maps = {name: predicted.predictions / f"{name}.nii.gz" for name in predicted.cases}
        answer["failed"] = dict(predicted.failed)
        if maps:
            seen = read_trained(run.model)
            scores = judge(cases, maps, out / "validation", recipe.scheme, run.log, progress, seen)
            answer["mean"], answer["failed"] = scores["mean"], answer["failed"] | scores.get("failures", {})
    page = run_report(out)
    answer["text"] = _say_run(answer, page, out)
    return answer


def judge(
    cases: Sequence[CaseRef],
    predictions: Mapping[str, Path],
    out: Path,
    scheme: LabelScheme,
    log: Path | None = None,
    progress: Progress = SILENT,
    trained_on: Sequence[str] = (),
) -> dict[str, Any]:
    """Score the predictions of labelled cases (protocol ``plain``) and draw the page with the best and the worst.

    Args:
        cases: with their label maps.
        predictions: case -> label map.
        out: the evaluation's folder.
        scheme: what the labels mean.
        log: ``log.jsonl`` of the training run, for its curves.
        progress: where to tell.
        trained_on: cases that the model has seen, for the audit.

    Returns:
        What ``OUT/scores.json`` holds.
    """
    known = {case.name: case for case in cases if case.labels is not None and case.name in predictions}
    pairs = {name: (_truth_file(case, out, scheme), predictions[name]) for name, case in known.items()}
    patients = {case.name: case.patient for case in cases}
    scores = evaluate_pairs(
        pairs, PLAIN, out, scheme=scheme, progress=progress, patients=patients, trained_on=trained_on
    )

    def pictures(name: str) -> tuple[Volume | None, Volume, Volume]:
        truth, prediction = pairs[name]
        return read_scan(known[name].image), read_labels(truth, scheme), read_labels(prediction, scheme)

    evaluation_report(out, pictures=pictures, scheme=scheme, log=log if log is not None and log.is_file() else None)
    return scores


def _truth_file(case: CaseRef, out: Path, scheme: LabelScheme) -> Path:
    """The reference as one file: a folder of masks is written as a label map first."""
    path = Path(str(case.labels))
    if not path.is_dir():
        return path
    file = out / "truth" / f"{case.name}.nii.gz"
    write_labels(file, read_labels(path, scheme))
    return file


def evaluate_and_report(
    truth: Path,
    prediction: Path,
    protocol: str,
    out: Path,
    *,
    scheme: str | None = None,
    missing: Missing = "fail",
    workers: int | None = None,
    progress: Progress = SILENT,
    trained_on: Path | None = None,
    fold: int | None = None,
    suspects: bool = False,
    scans: Path | None = None,
    probabilities: Path | None = None,
    claimed: Mapping[str, float] | None = None,
    figures: bool = False,
    options: ScoreOptions | None = None,
) -> dict[str, Any]:
    """Score two folders and draw the page.

    Args:
        truth, prediction, protocol, out, missing, workers, progress: as for ``judge.evaluate``.
        scheme: name of a label scheme.
        trained_on: a model, a run, folds or a list of names that say what the model has seen; for the audit. If None,
            the model that ``hilum segment`` says it made the predictions with.
        fold: of a file of folds, the one held out.
        suspects: also order the cases by disagreement (``suspects.json``, ``suspects.csv``).
        scans: folder of the cases' CT, for the pictures.
        probabilities, claimed, options: as for ``judge.evaluate``.
        figures: also write charts and panels for a paper to ``OUT/figures``.

    Returns:
        ``{"scores", "text", "exit_code"}``; the exit code is 1 if a case could not be scored.
    """
    labels = scheme_from(scheme) if scheme else None
    scores = evaluate(
        truth,
        prediction,
        protocol,
        out,
        scheme=labels,
        missing=missing,
        workers=workers,
        progress=progress,
        trained_on=read_trained(trained_on, fold) if trained_on else trained_by(prediction),
        probabilities=probabilities,
        claimed=claimed,
        options=options,
    )
    ranked = write_suspects(scores, out) if suspects else None
    if ranked is None:
        (out / "suspects.json").unlink(missing_ok=True)
    progress.stage("Drawing").say("Drawing the page")
    page = evaluation_report(out, pictures=stored_pictures(scores["files"], scans), scheme=labels, figures=figures)
    failures = scores.get("failures", {})
    lines = [mean_table(scores["mean"]), f"empty regions: {scores['empty_policy']}"]
    lines += [f"warning: {text}" for text in scores.get("warnings", [])]
    lines += [f"audit: {entry['text']}" for entry in scores["audit"]["findings"]]
    lines += [suspects_text(ranked)] if ranked is not None else []
    lines += [f"failed: {name}: {why}" for name, why in failures.items()]
    lines.append(f"{len(scores['cases'])} cases; pages and numbers: {page}")
    return {"scores": scores, "text": "\n".join(lines), "exit_code": 1 if failures else 0}


def compare_and_report(
    evaluations: Sequence[Path],
    out: Path,
    margins: Mapping[str, float] | None = None,
    groups: Path | None = None,
    claims: Mapping[str, float] | None = None,
    figures: bool = False,
) -> dict[str, Any]:
    """Compare evaluations (see ``judge.compare``) and draw the page; what ``comparison.json`` holds."""
    answer = compare(evaluations, out, margins, groups, claims)
    page = comparison_report(out, figures=figures)
    return {**answer, "text": f"{answer['text']}\npages and numbers: {page}"}


def redraw(path: Path) -> list[Path]:
    """Draw the pages of a training run, an evaluation or a case again, from the numbers that lie there."""
    if (path / "log.jsonl").is_file() or (path / "model" / "model.json").is_file():
        return [run_report(path)]
    if (path / "study.json").is_file():
        from hilum.pages.study import study_report

        return [study_report(path)]
    if (path / "scores.json").is_file():
        files = read_scores(path).get("files")
        return [evaluation_report(path, pictures=stored_pictures(files) if files else None)]
    if (path / "comparison.json").is_file():
        return [comparison_report(path)]
    if (path / "measurements.json").is_file():
        from hilum.pipeline import redraw_case

        return [redraw_case(path)]
    raise InputError(
        "nothing to draw here",
        where=path,
        wanted="a training run (log.jsonl), an evaluation (scores.json), a comparison or a case (measurements.json)",
    )


def mean_table(mean: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The means as plain text, a line a region: ``tumor  dice 0.812 (0.780 to 0.840)  iou 0.701 ...``."""
    lines = []
    for region, metrics in mean.items():
        told = [name for name in TELLING if name in metrics] or list(metrics)[:4]
        cells = []
        for name in told:
            entry = metrics[name]
            if entry["value"] is not None:
                span = f" ({entry['low']:.3f} to {entry['high']:.3f})" if entry.get("low") is not None else ""
                cells.append(f"{name} {entry['value']:.3f}{span if name == told[0] else ''}")
        lines.append(f"{region:16} {'  '.join(cells)}")
    return "\n".join(lines)


def commit() -> str:
    """The commit of hilum's own checkout, "" for an installed package; "+" behind it says that files were changed."""
    here = Path(__file__).parent
    try:
        call = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        inside = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", "runs.py"], capture_output=True, timeout=10
        )
        if inside.returncode:
            return ""
        return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _say_run(answer: Mapping[str, Any], page: Path, out: Path) -> str:
    lines = [f"trained in {clock(answer['seconds'])}; model: {answer['model']}"]
    if answer["mean"]:
        policy = read_json(out / "validation" / "scores.json")["empty_policy"]
        judged = len(answer["held_out"]) - len(answer["failed"])
        lines += [f"{judged} held-out cases:", mean_table(answer["mean"]), f"empty regions: {policy}"]
    lines += [f"failed: {name}: {why}" for name, why in answer["failed"].items()]
    return "\n".join([*lines, f"report: {page}", f"next: hilum segment SCAN --model {answer['model']} --out results"])
