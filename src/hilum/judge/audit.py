"""What a table of means does not say: the honesty audit of an evaluation.

Comes in: scored cases, what the labels mean, perhaps the names of what the model was trained on. Goes out: findings,
one sentence each with the cases that it rests on, and the mean IoU that would have been reported with background
counted as a class. It changes no score and knows no files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.judge.claims import claim_sentences
from hilum.judge.overlap import WHOLE_ARRAY, ratio
from hilum.judge.pair import Pair
from hilum.judge.scoring import CaseScore
from hilum.labels import LabelScheme

# metrics between 0 and 1 of which 1 is best and whose mean over cases is what people report
JUDGED = ("dice", "Dice", "surface_dice", "dice_per_case", "composite", "tk_dice", "tu_dice")
FAILED = 0.3  # a group of cases below this has failed ...
GAP = 0.4  # ... and is a group of its own if the next case is so much better
TRIVIAL_SHARE, TRIVIAL_GAIN = 0.25, 0.05
REPEATED, WINDOW = 0.4, 25
CARRIED = 0.9  # an accuracy that a model reaches by finding nothing
NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of the scores should know.

    Attributes:
        kind: ``absent``, ``never_predicted``, ``bimodal``, ``shared_patients``, ``trivial``, ``headers``,
            ``resampled``, ``carried``, ``background`` or ``claim``.
        text: a sentence.
        cases: those it rests on.
    """

    kind: str
    text: str
    cases: tuple[str, ...] = ()


def audit(
    scores: Mapping[str, CaseScore],
    scheme: LabelScheme,
    patients: Mapping[str, str] | None = None,
    trained_on: Collection[str] = (),
    claimed: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """``scores.json``'s "audit": {"findings": [{"kind", "text", "cases"}], "mean_iou", "claims", "trained_on": count}.

    Args:
        scores: case -> score.
        scheme: what the labels mean.
        patients: case -> patient, where they differ.
        trained_on: cases or patients that the model has seen in training; none if unknown.
        claimed: metric ("iou", "dice" or "accuracy") -> the mean that somebody reported for these predictions.
    """
    scores = {name: scores[name] for name in sorted(scores)}
    found = [
        *_absent(scores, scheme),
        *_modes(scores),
        *_trivial(scores),
        *_shared(scores, patients or {}, trained_on),
        *_traits(scores),
        *_carried(scores),
    ]
    means = mean_iou(scores)
    if means and means["with_background"] is not None:
        found.append(Finding("background", _background_sentence(means)))
    told = claim_sentences(scores, claimed or {})
    found += [Finding("claim", claim["text"]) for claim in told]
    findings = [{"kind": x.kind, "text": x.text, "cases": list(x.cases)} for x in found]
    return {
        "findings": findings,
        "mean_iou": means,
        "claims": told,
        "trained_on": len(set(trained_on)) if trained_on else None,
    }


def mean_iou(scores: Mapping[str, CaseScore]) -> dict[str, Any]:
    """Mean IoU over the labels that truth or prediction of a case holds, then over cases: three ways to report it.

    Returns:
        ``without_background``; ``with_background``, where label 0 is averaged in as one more class; and
        ``nothing_found``, what the second would be for an empty prediction. None where no case has a label.
    """
    rows = []
    for score in scores.values():
        tables = np.array([counts for value, counts in sorted(score.label_counts.items()) if value], float)
        if 0 not in score.label_counts or not len(tables):
            continue
        everything = sum(truth for _, truth, _ in score.label_counts.values())
        ious = ratio(tables[:, 0], tables[:, 1] + tables[:, 2] - tables[:, 0])
        tp, truth, predicted = score.label_counts[0]
        background = ratio(tp, truth + predicted - tp)
        held = int(np.count_nonzero(tables[:, 1]))
        nothing = truth / everything / (held + 1)
        rows.append((float(ious.mean()), (float(ious.sum()) + background) / (len(ious) + 1), nothing, background))
    if not rows:
        return {}
    names = ("without_background", "with_background", "nothing_found", "background_alone")
    return {"cases": len(rows), **dict(zip(names, np.array(rows).mean(axis=0).tolist(), strict=True))}


def resampled(pair: Pair) -> str:
    """A sentence if the prediction repeats its planes where the truth does not: it was made on a coarser grid.

    Nearest-neighbour resampling by two leaves every second pair of neighbouring planes equal. Looked at are up to 24
    pairs in the middle of the box, along each axis.
    """
    (table,) = pair.memo.recall(
        "repeated planes",
        lambda: [np.array([[_repeated(a, axis) for a in (pair.truth, pair.prediction)] for axis in range(3)])],
    )
    told = []
    for axis, shares in enumerate(table.tolist()):
        if shares[1] >= REPEATED and shares[1] >= shares[0] + REPEATED / 2:
            told.append(f"{100 * shares[1]:.0f} % of neighbouring planes across axis {axis}")
    if not told:
        return ""
    return f"the prediction looks resampled from a coarser grid: {' and '.join(told)} are equal, the truth's are not"


def _repeated(labels: np.ndarray, axis: int) -> float:
    """Share of equal neighbours among the planes that hold anything, in the middle; 0 for fewer than 6 of them."""
    planes = np.moveaxis(labels, axis, 0)
    first = max(0, len(planes) // 2 - WINDOW // 2)
    planes = planes[first : first + WINDOW]
    some = np.asarray(planes.any(axis=(1, 2)))
    pairs = some[1:] & some[:-1]
    if np.count_nonzero(pairs) < 6:
        return 0.0
    equal = np.array([np.array_equal(a, b) for a, b in zip(planes[1:], planes[:-1], strict=True)])
    return float(np.count_nonzero(equal & pairs) / np.count_nonzero(pairs))


def _absent(scores: Mapping[str, CaseScore], scheme: LabelScheme) -> list[Finding]:
    findings = []
    counted = {name: score.label_counts for name, score in scores.items() if score.label_counts}
    for label in scheme.labels if counted else ():
        cells = {name: counts.get(label.value, (0, 0, 0)) for name, counts in counted.items()}
        held = tuple(name for name, (_, truth, _) in cells.items() if truth)
        predicted = any(prediction for _, _, prediction in cells.values())
        if not held:
            extra = "; every voxel of it in a prediction is an error" if predicted else ""
            text = f"no truth holds {label.name}: no score here says whether the model can find it{extra}"
            findings.append(Finding("absent", text))
        elif not predicted:
            text = f"{label.name} is never predicted, though {_of(held, counted)} hold it"
            findings.append(Finding("never_predicted", text, held))
    return findings


def _modes(scores: Mapping[str, CaseScore]) -> list[Finding]:
    """Two groups of cases with a wide gap between them, the lower of which failed: their mean describes no case."""
    findings = []
    for region, metric, values in _columns(scores):
        names = sorted(values, key=lambda name: values[name])
        marks = np.array([values[name] for name in names])
        if len(marks) < 2 or marks[0] >= FAILED:
            continue
        cut = int(np.argmax(np.diff(marks))) + 1
        if marks[cut] - marks[cut - 1] < GAP or marks[cut - 1] >= FAILED:
            continue
        low = tuple(names[:cut])
        text = (
            f"{region} {metric}: the mean of {marks.mean():.3f} hides two groups: {_of(low, values)} at "
            f"{marks[cut - 1]:.3f} or less, the other {len(marks) - cut} with a mean of {marks[cut:].mean():.3f}"
        )
        findings.append(Finding("bimodal", text, low))
    return findings


def _trivial(scores: Mapping[str, CaseScore]) -> list[Finding]:
    """Cases without the region on either side that score 1 by the protocol's rule."""
    findings = []
    for region, metric, values in _columns(scores):
        empty = tuple(
            name for name, value in values.items() if value == 1 and scores[name].truth_voxels.get(region) == 0
        )
        rest = [value for name, value in values.items() if name not in empty]
        mean = float(np.mean(list(values.values())))
        gain = mean - float(np.mean(rest)) if rest else 1.0
        if not empty or (len(empty) < TRIVIAL_SHARE * len(values) and gain < TRIVIAL_GAIN):
            continue
        without = f"without them the mean is {mean - gain:.3f}, not {mean:.3f}" if rest else "no other case is left"
        text = f"{region} {metric}: {_of(empty, values)} are empty on both sides and count as 1; {without}"
        findings.append(Finding("trivial", text, empty))
    return findings


def _shared(scores: Mapping[str, CaseScore], patients: Mapping[str, str], trained_on: Collection[str]) -> list[Finding]:
    seen = {*trained_on, *(patients[name] for name in trained_on if name in patients)}
    both = tuple(name for name in scores if name in seen or patients.get(name, name) in seen)
    if not both:
        return []
    text = f"{_of(both, scores)} bear names that the model was trained on: of the same patients they are no test"
    return [Finding("shared_patients", text, both)]


def _traits(scores: Mapping[str, CaseScore]) -> list[Finding]:
    by_text: dict[tuple[str, str], list[str]] = {}
    for name in scores:
        for kind, text in scores[name].traits:
            by_text.setdefault((kind, text), []).append(name)
    return [Finding(kind, f"{_of(names, scores)}: {text}", tuple(names)) for (kind, text), names in by_text.items()]


def _carried(scores: Mapping[str, CaseScore]) -> list[Finding]:
    """Metrics that count true negatives, where background is so much that finding nothing scores nearly as well."""
    told = []
    for region in dict.fromkeys(region for score in scores.values() for region in score.values):
        metrics = {name: score.values[region] for name, score in scores.items() if region in score.values}
        cells = [np.array([of[key] for key in ("TP", "FP", "FN", "TN")]) for of in metrics.values() if "accuracy" in of]
        if not cells:
            continue
        tp, fp, fn, tn = np.array(cells, float).T
        whole = tp + fp + fn + tn
        nothing = float(np.mean((fp + tn) / whole))
        if nothing >= CARRIED:
            accuracy, specificity = float(np.mean((tp + tn) / whole)), float(np.nanmean(ratio(tn, tn + fp)))
            told.append(
                f"{region} {nothing:.4f} (here {accuracy:.4f}, and a specificity of {specificity:.4f} where that model "
                "has 1)"
            )
    if not told:
        return []
    text = (
        f"accuracy and specificity are carried by background, counted in {WHOLE_ARRAY}: a model that finds nothing has "
        f"an accuracy of {', '.join(told)}; sensitivity, precision and Dice say more"
    )
    return [Finding("carried", text)]


def _columns(scores: Mapping[str, CaseScore]) -> Iterable[tuple[str, str, dict[str, float]]]:
    """Region, metric, and the finite values by case."""
    columns = dict.fromkeys(
        (region, metric)
        for score in scores.values()
        for region, metrics in score.values.items()
        for metric in metrics
        if metric in JUDGED
    )
    for region, metric in columns:
        values = {name: score.values.get(region, {}).get(metric, np.nan) for name, score in scores.items()}
        finite = {name: float(value) for name, value in values.items() if np.isfinite(value)}
        if finite:
            yield region, metric, finite


def _of(names: Sequence[str], whole: Collection[str]) -> str:
    """``2 of 9 cases (a, b)``."""
    told = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return f"{len(names)} of {len(whole)} cases ({told})"


def _background_sentence(means: Mapping[str, Any]) -> str:
    return (
        f"mean IoU over labels is {means['without_background']:.3f}; with background counted as a class it would read "
        f"{means['with_background']:.3f}, and {means['nothing_found']:.3f} for a model that finds nothing (background "
        f"alone has {means['background_alone']:.3f})"
    )
