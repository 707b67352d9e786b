"""What is to be scored, and how one case of it is scored.

Comes in: the pairing of two folders, perhaps a folder of probabilities. Goes out: a ``Job`` a case, and its
``CaseScore``. Several references of one case (KiTS21's sampled segmentations) are scored one by one and averaged, as
the official test scoring does (neheller/kits21 ``kits21/evaluation/metrics.py``, 0cf253ff).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hilum.errors import DatasetError, InputError, LabelError
from hilum.judge.audit import resampled
from hilum.judge.confidence import Confidence, measure_confidence
from hilum.judge.lesions import lesion_lists
from hilum.judge.measured import Ready, Shelf
from hilum.judge.pair import Pair
from hilum.judge.pairing import Pairing, nearest
from hilum.judge.scoring import CaseScore, Protocol, ScoreOptions
from hilum.labels import LabelScheme
from hilum.scans import read_volume
from hilum.volume import Volume, require_same_grid

Missing = Literal["fail", "skip", "zero"]
SAMPLES = "segmentation_samples"  # KiTS21: case/segmentation_samples/group*/*.nii.gz
_PROBABILITIES = "probabilities_"  # as hilum segment --probabilities calls them


@dataclass(frozen=True)
class Job:
    """One case to score.

    Attributes:
        truth: file of the reference.
        prediction: file; None stands for a prediction that found nothing.
        probabilities: label name as it stands in the file's name -> file; empty if there are none.
    """

    truth: Path
    prediction: Path | None
    probabilities: Mapping[str, Path] = field(default_factory=dict)


def jobs_of(
    pairing: Pairing, missing: Missing, truth: Path, prediction: Path, probabilities: Path | None = None
) -> tuple[dict[str, Job], dict[str, str], list[str]]:
    """Jobs by case, failures by case, warnings.

    Raises:
        DatasetError: nothing pairs, or a folder of probabilities was given that holds none.
    """
    if not pairing.pairs:
        left, right = next(iter(pairing.truth_only)), next(iter(pairing.prediction_only))
        raise DatasetError(
            f"no case has both a truth and a prediction (truths such as {left!r}, predictions such as {right!r})",
            where=prediction,
            wanted=f"the names of {truth}",
            fix="give prediction files the stem of their truth's file, or its folder's name",
        )
    jobs = {name: Job(*pair, probabilities_of(name, pair[1], probabilities)) for name, pair in pairing.pairs.items()}
    failures, warnings = {}, []
    for name, path in pairing.truth_only.items():
        if missing == "zero":
            jobs[name] = Job(path, None)
        elif missing == "fail":
            failures[name] = f"no prediction in {prediction}{nearest(name, pairing.prediction_only)}"
    if pairing.truth_only and missing != "fail":
        done = "scored as one that found nothing" if missing == "zero" else "left out"
        warnings.append(f"{', '.join(pairing.truth_only)}: no prediction; {done}")
    warnings += [
        f"{name}: a prediction without a truth in {truth}{nearest(name, pairing.truth_only)}; left out"
        for name in pairing.prediction_only
    ]
    without = [name for name, job in jobs.items() if not job.probabilities]
    if probabilities is not None and len(without) == len(jobs):
        raise DatasetError(
            "holds no probabilities of these cases",
            where=probabilities,
            wanted=f"files such as {next(iter(jobs))}/{_PROBABILITIES}LABEL.nii.gz",
            fix="make them with hilum segment --probabilities",
        )
    if without and len(without) < len(jobs):
        some = ", ".join(without[:3]) + (f" and {len(without) - 3} more" if len(without) > 3 else "")
        warnings.append(f"{some}: no probabilities; not in FROC and calibration")
    return jobs, failures, warnings


def probabilities_of(name: str, prediction: Path | None, folder: Path | None) -> dict[str, Path]:
    """Files of probabilities of a case by label: in ``folder/<case>``, else beside a prediction in its own folder."""
    places = [folder / name] if folder is not None else []
    if prediction is not None and prediction.parent.name == name:
        places.append(prediction.parent)
    for place in places:
        files = sorted(place.glob(f"{_PROBABILITIES}*.nii*")) if place.is_dir() else []
        if files:
            return {file.name.split(".nii")[0].removeprefix(_PROBABILITIES): file for file in files}
    return {}


def score_job(job: Job, protocol: Protocol, scheme: LabelScheme, options: ScoreOptions, shelf: Shelf) -> CaseScore:
    """One case from its files."""
    ready = shelf.ready(job.truth, job.prediction, protocol.same_grid)
    score = score_pair(ready.pair, ready.warnings, ready.headers, protocol, scheme, options)
    score = replace(score, lesions=_with_places(score, ready.pair, scheme, options))
    if job.probabilities:
        score = replace(score, confidence=_confidence(job, ready, scheme, options))
    shelf.keep(ready)
    return _over_samples(job, score, protocol, scheme, options, shelf) if protocol.samples else score


def score_pair(
    pair: Pair,
    warnings: Sequence[str],
    headers: Sequence[Volume],
    protocol: Protocol,
    scheme: LabelScheme,
    options: ScoreOptions,
) -> CaseScore:
    """A pair's score with what the audit wants to know of it."""
    strange = _strange_labels(pair.values_seen(), scheme)
    if strange and protocol.same_grid:
        _refuse_labels(pair, headers, scheme)
    score = protocol.score(pair, scheme, options)
    traits = [("headers", text) for text in warnings]
    if text := resampled(pair):
        traits.append(("resampled", text))
    voxel_ml = pair.grid.voxel_volume_mm3 / 1000
    counts = {region.name: pair.counts(region.labels) for region in scheme.regions}
    return replace(
        score,
        warnings=(*warnings, *strange, *score.warnings),
        label_counts=pair.label_counts(),
        traits=tuple(traits),
        volumes_ml={name: (c.truth * voxel_ml, c.prediction * voxel_ml) for name, c in counts.items()},
    )


def _with_places(
    score: CaseScore, pair: Pair, scheme: LabelScheme, options: ScoreOptions
) -> dict[str, dict[str, list[dict[str, object]]]]:
    """Lesions found, missed and invented, whatever the protocol: the page shows where."""
    lists = dict(score.lesions)
    for region in scheme.regions:
        if all(scheme.label(value).is_lesion for value in region.labels) and "missed" not in lists.get(region.name, {}):
            found = lesion_lists(pair.region(region.labels).lesions(options.connectivity))
            lists[region.name] = found | lists.get(region.name, {})
    return lists


def _over_samples(
    job: Job, score: CaseScore, protocol: Protocol, scheme: LabelScheme, options: ScoreOptions, shelf: Shelf
) -> CaseScore:
    """The mean of the scores against every sampled segmentation; the rest is told of the case's one label map."""
    files = sorted((job.truth.parent / SAMPLES).glob("group*/*.nii.gz"))
    if not files:
        raise InputError(
            "holds no sampled segmentations",
            where=job.truth.parent,
            wanted=f"{SAMPLES}/group*/*.nii.gz, as KiTS21's sample_segmentations.py writes them",
            fix="score against the one label map with protocol kits21",
        )
    scores = []
    for file in files:
        ready = shelf.ready(file, job.prediction, protocol.same_grid)
        scores.append(protocol.score(ready.pair, scheme, options))
        shelf.keep(ready)
    values = {
        region: {metric: float(np.mean([s.values[region][metric] for s in scores])) for metric in metrics}
        for region, metrics in scores[0].values.items()
    }
    sums = {name: float(np.mean([s.sums[name] for s in scores])) for name in scores[0].sums}
    note = f"the mean of {len(files)} sampled segmentations"
    return replace(score, values=values, sums=sums, warnings=(*score.warnings, note))


def _confidence(job: Job, ready: Ready, scheme: LabelScheme, options: ScoreOptions) -> dict[str, Confidence]:
    """Of every region of the scheme all of whose labels have probabilities."""
    digest = hashlib.sha256()
    for file in job.probabilities.values():
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    names = {label.value: label.name.replace(" ", "_").replace("/", "_") for label in scheme.labels}
    shares: dict[str, np.ndarray] = {}

    def measured(labels: tuple[int, ...]) -> list[np.ndarray]:
        for value in labels:
            name = names[value]
            if name not in shares:
                shares[name] = _shares(job.probabilities[name], ready)
        together = np.minimum(sum(shares[names[value]].astype(np.float32) for value in labels), 1.0)
        found = measure_confidence(_truth_mask(ready, labels), np.asarray(together), options.connectivity)
        return [found.found, found.invented, found.bins, np.array(found.square)]

    table = {}
    for region in scheme.regions:
        if all(names[value] in job.probabilities for value in region.labels):
            key = f"confidence {region.labels} {options.connectivity} {digest.hexdigest()[:24]}"
            parts = ready.pair.memo.recall(key, lambda labels=region.labels: measured(labels))  # type: ignore[misc]
            table[region.name] = Confidence(parts[0], parts[1], parts[2], float(parts[3]))
    return table


def _shares(file: Path, ready: Ready) -> np.ndarray:
    """Probabilities 0..1 in the order of the truth's axes."""
    volume = read_volume(file)
    truth = ready.headers[0]
    if volume.codes != truth.codes:
        volume = volume.oriented(truth.codes)
    require_same_grid(truth, volume)
    if volume.array.dtype == np.uint8:
        return np.asarray(volume.array, np.float32) / 255
    if (
        volume.array.dtype.kind != "f"
        or not np.isfinite(volume.array).all()
        or not volume.array.min() >= 0
        or (volume.array.max() > 1)
    ):
        raise LabelError(
            f"holds numbers from {volume.array.min():g} to {volume.array.max():g}",
            where=file,
            wanted="probabilities: 8-bit numbers of which 255 means 1, or fractions of 0 to 1",
        )
    return np.asarray(volume.array, np.float32)


def _truth_mask(ready: Ready, labels: tuple[int, ...]) -> np.ndarray:
    """Where the whole truth holds one of the labels, put together from the pair's box."""
    grid, box = ready.headers[0].grid, ready.pair.grid
    start = np.round(grid.index(box.world((0, 0, 0)))).astype(int)
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, box.shape, strict=True))] = np.isin(ready.pair.truth, labels)
    return mask


def _refuse_labels(pair: Pair, headers: Sequence[Volume], scheme: LabelScheme) -> None:
    """The scheme's own error about labels that it does not know."""
    for axis, header in ((1, headers[0]), (0, headers[1])):
        voxels = pair.joint.sum(axis=axis)
        scheme.check(np.repeat(np.arange(256, dtype=np.uint8), voxels), header.source)


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
