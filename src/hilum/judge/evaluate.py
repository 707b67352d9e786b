"""Scoring folders: pair, score in parallel, average with intervals, write.

Comes in: a folder of truths, one of predictions, a protocol's name. Goes out: ``OUT/scores.json``, ``OUT/scores.csv``.
A case that cannot be scored is recorded under "failures" and the others go on. Knows no pictures and no pages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilum.cores import cpu_count
from hilum.errors import HilumError, UsageError
from hilum.files import plain, write_json, write_text
from hilum.judge.claims import ways
from hilum.judge.jobs import Job, Missing, jobs_of, score_job, score_pair
from hilum.judge.measured import Shelf
from hilum.judge.pair import make_pair
from hilum.judge.pairing import pair_cases
from hilum.judge.protocols import protocol_named
from hilum.judge.scoring import CaseScore, Protocol, ScoreOptions, Values
from hilum.judge.summary import csv_table, summarise
from hilum.labels import SCHEMES, LabelScheme
from hilum.progress import SILENT, Progress
from hilum.volume import Volume

__all__ = ["Missing", "evaluate", "evaluate_pairs", "scheme_of", "score_case"]


def evaluate(
    truth: Path,
    prediction: Path,
    protocol: str,
    out: Path,
    *,
    scheme: LabelScheme | None = None,
    missing: Missing = "fail",
    workers: int | None = None,
    progress: Progress = SILENT,
    options: ScoreOptions | None = None,
    patients: Mapping[str, str] | None = None,
    trained_on: Collection[str] = (),
    probabilities: Path | None = None,
    claimed: Mapping[str, float] | None = None,
    keep: bool = True,
) -> dict[str, Any]:
    """Score a folder of predictions against a folder of truths and write ``scores.json`` and ``scores.csv``.

    Args:
        truth: folder (or file) of label maps.
        prediction: the same for predictions; cases pair by file stem or folder name.
        protocol: a name of ``protocols.PROTOCOLS``.
        out: folder for the results.
        scheme: what the labels mean; the protocol's own if None.
        missing: a truth without prediction is a failure ("fail"), left out with a warning ("skip"), or scored as a
            prediction that found nothing ("zero").
        workers: cases scored at once; by default as many as processors.
        progress: where to tell.
        options: tolerances and lesion rules, of the protocols that leave them open.
        patients: case -> patient, for intervals where a patient has several scans.
        trained_on: cases or patients that the model was trained on, which the audit looks for among the scored.
        probabilities: folder of ``<case>/probabilities_<label>.nii.gz``, for FROC and calibration; those that lie
            beside predictions are found without it.
        claimed: what somebody said of these predictions, such as ``{"iou": 0.989}``; the audit says how it comes about.
        keep: keep what is measured in ``OUT/measured``, so that another protocol or a second run measures nothing
            again.

    Returns:
        What ``scores.json`` holds.

    Raises:
        UsageError: an unknown protocol, an option that it does not take or that is out of bounds.
        DatasetError: nothing pairs.
    """
    rules = protocol_named(protocol)
    labels = scheme_of(rules, scheme)
    chosen = (options or ScoreOptions()).checked(rules)
    if missing not in ("fail", "skip", "zero"):
        raise UsageError(f"missing = {missing!r}", wanted="fail, skip or zero")
    for metric in claimed or {}:
        ways({}, metric)  # a metric that nobody can check is refused before the work
    pairing = pair_cases(Path(truth), Path(prediction))
    jobs, failures, warnings = jobs_of(pairing, missing, Path(truth), Path(prediction), probabilities)
    shelf = Shelf(Path(out) if keep else None)
    scores, failed = _score_all(jobs, rules, labels, chosen, workers, progress, shelf)
    result = summarise(scores, rules, labels, warnings, failures | failed, patients or {}, trained_on, claimed)
    return _write(result, jobs, rules, chosen, Path(out))


def evaluate_pairs(
    pairs: Mapping[str, tuple[Path, Path]],
    protocol: str,
    out: Path,
    *,
    scheme: LabelScheme | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
    patients: Mapping[str, str] | None = None,
    trained_on: Collection[str] = (),
    keep: bool = True,
    measured: Sequence[Path] = (),
) -> dict[str, Any]:
    """Score cases whose truth and prediction are known one by one, wherever they lie; otherwise as ``evaluate``.

    Args:
        pairs: case -> (truth, prediction).
        protocol: a name of ``protocols.PROTOCOLS``.
        out: folder for ``scores.json`` and ``scores.csv``.
        scheme, workers, progress, patients, trained_on, keep: as for ``evaluate``.
        measured: folders of other evaluations that may have measured the same pairs.
    """
    rules = protocol_named(protocol)
    labels = scheme_of(rules, scheme)
    jobs = {name: Job(*pair) for name, pair in pairs.items()}
    shelf = Shelf(Path(out) if keep else None, measured)
    scores, failed = _score_all(jobs, rules, labels, ScoreOptions(), workers, progress, shelf)
    result = summarise(scores, rules, labels, [], failed, patients or {}, trained_on)
    return _write(result, jobs, rules, ScoreOptions(), Path(out))


def score_case(
    truth: Volume,
    prediction: Volume,
    protocol: str,
    scheme: LabelScheme | None = None,
    options: ScoreOptions | None = None,
) -> Values:
    """One case: region -> metric -> number, NaN or inf where undefined.

    Raises:
        GeometryError: shapes (or, for protocols that compare by place, affines) differ.
        LabelError: numbers that are no labels, or labels that the scheme does not know.
    """
    rules = protocol_named(protocol)
    pair, warnings = make_pair(truth, prediction, rules.same_grid)
    chosen = options or ScoreOptions(threads=-1)
    return score_pair(pair, warnings, (truth, prediction), rules, scheme_of(rules, scheme), chosen).values


def scheme_of(protocol: Protocol, scheme: LabelScheme | None) -> LabelScheme:
    """The scheme to score by: the protocol's own unless another is given and allowed."""
    own = SCHEMES[protocol.scheme]
    if scheme is None or (protocol.fixed and set(scheme.values) <= set(own.values)):
        return own
    if protocol.fixed:
        raise UsageError(
            f"label scheme {scheme.name!r} with protocol {protocol.name!r}",
            wanted=f"labels of scheme {own.name!r}, which this protocol defines",
            fix="choose the protocol 'plain', which scores any labels",
        )
    return scheme


def _paths(job: Job) -> dict[str, str | None]:
    """Where both sides lie, for the pictures of the page."""
    return {
        "truth": str(job.truth.resolve()),
        "prediction": None if job.prediction is None else str(job.prediction.resolve()),
    }


def _write(
    result: dict[str, Any], jobs: Mapping[str, Job], rules: Protocol, options: ScoreOptions, out: Path
) -> dict[str, Any]:
    result["options"] = plain({name: getattr(options, name) for name in rules.takes})
    result["files"] = {name: _paths(job) for name, job in jobs.items()}
    write_json(out / "scores.json", result)
    write_text(out / "scores.csv", csv_table(result["cases"]))
    return result


def _score_all(
    jobs: Mapping[str, Job],
    protocol: Protocol,
    scheme: LabelScheme,
    options: ScoreOptions,
    workers: int | None,
    progress: Progress,
    shelf: Shelf,
) -> tuple[dict[str, CaseScore], dict[str, str]]:
    """Threads, not processes: array work leaves the interpreter lock, and threads start at once."""
    count = max(1, min(workers or cpu_count(), len(jobs)))
    spare = max(1, cpu_count() // count)
    options = replace(options, threads=spare)
    scores: dict[str, CaseScore] = {}
    failures: dict[str, str] = {}
    bar = progress.stage("Scoring", len(jobs))
    with ThreadPoolExecutor(count) as pool:
        futures: dict[Future[CaseScore], str] = {
            pool.submit(score_job, job, protocol, scheme, options, shelf): name for name, job in jobs.items()
        }
        for future in as_completed(futures):
            name = futures[future]
            try:
                scores[name] = future.result()
            except (HilumError, OSError, MemoryError) as error:
                failures[name] = str(error) or type(error).__name__
            bar.step(note=name)
    return scores, failures
