"""Scoring folders: pair, score in parallel, average with intervals, write.

Comes in: a folder of truths, one of predictions, a protocol's name. Goes out: ``OUT/scores.json``, ``OUT/scores.csv``.
A case that cannot be scored is recorded under "failures" and the others go on. Knows no pictures and no pages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hilum.cores import cpu_count
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files import write_json, write_text
from hilum.judge.audit import resampled
from hilum.judge.pairing import Pairing, nearest, pair_cases
from hilum.judge.protocols import protocol_named
from hilum.judge.scoring import CaseScore, Protocol, ScoreOptions, Values, make_pair
from hilum.judge.summary import csv_table, summarise
from hilum.labels import SCHEMES, LabelScheme
from hilum.progress import SILENT, Progress
from hilum.scans import read_volume
from hilum.volume import Volume

Missing = Literal["fail", "skip", "zero"]


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
        options: tolerances and lesion rules of the protocols that leave them open.
        patients: case -> patient, for intervals where a patient has several scans.
        trained_on: cases or patients that the model was trained on, which the audit looks for among the scored.

    Returns:
        What ``scores.json`` holds.

    Raises:
        UsageError: an unknown protocol or option.
        DatasetError: nothing pairs.
    """
    rules = protocol_named(protocol)
    labels = scheme_of(rules, scheme)
    if missing not in ("fail", "skip", "zero"):
        raise UsageError(f"missing = {missing!r}", wanted="fail, skip or zero")
    jobs, failures, warnings = _jobs(pair_cases(Path(truth), Path(prediction)), missing, Path(truth), Path(prediction))
    scores, failed = _score_all(jobs, rules, labels, options or ScoreOptions(), workers, progress)
    result = summarise(scores, rules, labels, warnings, failures | failed, patients or {}, trained_on)
    return _write(result, Path(out))


def evaluate_pairs(
    pairs: Mapping[str, tuple[Path, Path]],
    protocol: str,
    out: Path,
    *,
    scheme: LabelScheme | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
    patients: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Score cases whose truth and prediction are known one by one, wherever they lie; otherwise as ``evaluate``.

    Args:
        pairs: case -> (truth, prediction).
        protocol: a name of ``protocols.PROTOCOLS``.
        out: folder for ``scores.json`` and ``scores.csv``.
        scheme, workers, progress, patients: as for ``evaluate``.
    """
    rules = protocol_named(protocol)
    labels = scheme_of(rules, scheme)
    scores, failed = _score_all(pairs, rules, labels, ScoreOptions(), workers, progress)
    return _write(summarise(scores, rules, labels, [], failed, patients or {}), Path(out))


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
    return _score(truth, prediction, rules, scheme_of(rules, scheme), options or ScoreOptions(threads=-1)).values


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


def _write(result: dict[str, Any], out: Path) -> dict[str, Any]:
    write_json(out / "scores.json", result)
    write_text(out / "scores.csv", csv_table(result["cases"]))
    return result


def _jobs(
    pairing: Pairing, missing: Missing, truth: Path, prediction: Path
) -> tuple[dict[str, tuple[Path, Path | None]], dict[str, str], list[str]]:
    jobs: dict[str, tuple[Path, Path | None]] = dict(pairing.pairs)
    failures, warnings = {}, []
    if not pairing.pairs:
        left, right = next(iter(pairing.truth_only)), next(iter(pairing.prediction_only))
        raise DatasetError(
            f"no case has both a truth and a prediction (truths such as {left!r}, predictions such as {right!r})",
            where=prediction,
            wanted=f"the names of {truth}",
            fix="give prediction files the stem of their truth's file, or its folder's name",
        )
    for name, path in pairing.truth_only.items():
        if missing == "zero":
            jobs[name] = (path, None)
            warnings.append(f"{name}: no prediction; scored as one that found nothing")
        elif missing == "skip":
            warnings.append(f"{name}: no prediction; left out")
        else:
            failures[name] = f"no prediction in {prediction}{nearest(name, pairing.prediction_only)}"
    warnings += [
        f"{name}: a prediction without a truth in {truth}{nearest(name, pairing.truth_only)}; left out"
        for name in pairing.prediction_only
    ]
    return jobs, failures, warnings


def _score_all(
    jobs: Mapping[str, tuple[Path, Path | None]],
    protocol: Protocol,
    scheme: LabelScheme,
    options: ScoreOptions,
    workers: int | None,
    progress: Progress,
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
            pool.submit(_score_files, paths, protocol, scheme, options): name for name, paths in jobs.items()
        }
        for future in as_completed(futures):
            name = futures[future]
            try:
                scores[name] = future.result()
            except (HilumError, OSError, MemoryError) as error:
                failures[name] = str(error) or type(error).__name__
            bar.step(note=name)
    return scores, failures


def _score_files(
    paths: tuple[Path, Path | None], protocol: Protocol, scheme: LabelScheme, options: ScoreOptions
) -> CaseScore:
    truth = read_volume(paths[0])
    if paths[1] is None:
        prediction = Volume(np.zeros(truth.shape, np.uint8), truth.affine, "no prediction")
    else:
        prediction = read_volume(paths[1])
    return _score(truth, prediction, protocol, scheme, options)


def _score(
    truth: Volume, prediction: Volume, protocol: Protocol, scheme: LabelScheme, options: ScoreOptions
) -> CaseScore:
    if protocol.same_grid:
        for volume in (truth, prediction):
            scheme.check(volume.array, volume.source)
    pair, warnings = make_pair(truth, prediction, protocol.same_grid)
    strange = _strange_labels(pair.values_seen(), scheme)
    score = protocol.score(pair, scheme, options)
    traits = [("headers", text) for text in warnings]
    if text := resampled(pair):
        traits.append(("resampled", text))
    return replace(
        score,
        warnings=(*warnings, *strange, *score.warnings),
        label_counts=pair.label_counts(),
        traits=tuple(traits),
    )


def _strange_labels(seen: tuple[np.ndarray, np.ndarray], scheme: LabelScheme) -> list[str]:
    warnings = []
    for side, values in zip(("truth", "prediction"), seen, strict=True):
        unknown = sorted(set(values.tolist()) - {0, *scheme.values})
        if unknown:
            warnings.append(
                f"the {side} holds labels {unknown} that scheme {scheme.name!r} does not know; they were scored as the "
                "official code does"
            )
    return warnings
