"""The liver tumour challenge's scorer, faults and all, and the same without the faults.

Comes in: a Pair of label maps (1 liver, 2 lesion; of another scheme, tumours are lesions and the rest is liver). Goes
out: per case what the scorer prints when run on that volume alone, pooled what it prints for all. Source:
PatrickChrist/lits-challenge-scoring ``program/`` (090307dd), read and run; arrays in file order, spacing of the truth.

What ``lits`` keeps: 9001 stands for infinity and enters means; lesion overlap is averaged over detected lesions only;
the largest tumour burden error is signed; the detection of ``detection.py``. A truth without lesions stops the scorer;
it is scored here as its comments intend (nothing to find, every prediction false), and a warning says so.
``lits-corrected`` has intersection over union as documented, null instead of 9001, absolute burden errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import ndimage

from hilum.components import components_of
from hilum.judge.detection import Detection, detect
from hilum.judge.overlap import Counts, mask_counts, ratio
from hilum.judge.pair import Masks, Pair
from hilum.judge.scoring import CaseScore, Protocol, ScoreOptions, Sums
from hilum.judge.surface import VoxelDistances
from hilum.labels import LabelScheme

LARGE = 9001.0
THRESHOLDS = (0.0, 0.5)
_OBJECT = ("dice", "jaccard", "voe", "rvd", "assd", "rmsd", "msd")
_WORST = dict(zip(_OBJECT, (0.0, 0.0, 1.0, LARGE, LARGE, LARGE, LARGE), strict=True))
# the scorer casts to 8 bits with a sign: what is above 127 becomes negative and so background
_LIVER = range(1, 128)
NO_LESION = "the truth holds no lesion, where the official scorer stops; scored as its comments intend"


def score_lits(pair: Pair, scheme: LabelScheme, options: ScoreOptions, official: bool = True) -> CaseScore:
    """One volume: lesion and liver overlap and distances, detection at two thresholds, tumour burden."""
    tumours = tuple(label.value for label in scheme.labels if label.kind == "tumour")
    organ = tuple(value for value in scheme.values if value not in tumours)
    liver, lesion = pair.counts(_LIVER), pair.counts(tumours)
    detections, objects = _detections(pair, tumours, official, options.threads)
    has_liver = bool(pair.counts(organ).prediction)
    livers = [_liver(pair, official, options.threads) if has_liver else _worst(official)]
    score = CaseScore({}, truth_voxels={"liver": liver.truth, "lesion": lesion.truth})
    sums = score.sums
    sums |= {"cases": 1.0, "lesion/I": lesion.tp, "lesion/S": lesion.truth + lesion.prediction}
    sums |= {"liver/I": liver.tp if has_liver else 0, "liver/S": liver.truth + (liver.prediction if has_liver else 0)}
    sums["lesion/dice_per_case"] = ratio(2 * sums["lesion/I"], sums["lesion/S"]) if sums["lesion/S"] else 1.0
    sums["liver/dice_per_case"] = livers[0]["dice"]
    for name, values in (("lesion", objects), ("liver", livers)):
        for metric in _OBJECT:
            kept = [v[metric] for v in values if np.isfinite(v[metric])]
            sums |= {f"{name}/{metric}/sum": float(sum(kept)), f"{name}/{metric}/n": float(len(kept))}
    for threshold, found in zip(THRESHOLDS, detections, strict=True):
        cells = {"TP": found.tp, "FP": found.fp, "FN": found.fn, "hits": found.hits}
        sums |= {f"{cell}_{threshold:g}": float(n) for cell, n in cells.items()}
    burden = _burden_difference(lesion.truth, liver.truth, lesion.prediction, liver.prediction, has_liver, official)
    defined = bool(np.isfinite(burden))
    sums |= {"burdens": float(defined), "burden_squares": burden**2 if defined else 0.0}
    score.peaks["burden"] = (burden if official else abs(burden)) if defined else -np.inf
    pooled = pool_lits({k: np.array([v]) for k, v in sums.items()}, _arrays(score.peaks), official)
    score.values.update({region: {m: float(v[0]) for m, v in metrics.items()} for region, metrics in pooled.items()})
    score.values["tumor_burden"]["tumor_burden_diff"] = burden
    score.reasons.update(_reasons(score, liver.truth))
    score.lesions["lesion"] = {"detected": [dict(values) for values in objects]}
    warnings = (NO_LESION,) if official and not lesion.truth else ()
    return replace(score, warnings=warnings)


def pool_lits(sums: Sums, peaks: Sums, official: bool = True) -> dict[str, dict[str, np.ndarray]]:
    """What the scorer prints at its end, from sums over volumes."""
    pooled: dict[str, dict[str, np.ndarray]] = {}
    for name in ("lesion", "liver"):
        means = {m: np.asarray(ratio(sums[f"{name}/{m}/sum"], sums[f"{name}/{m}/n"])) for m in _OBJECT}
        if official:
            means = {m: np.where(np.isnan(v), _WORST[m], v) for m, v in means.items()}
        means["dice_per_case"] = ratio(sums[f"{name}/dice_per_case"], sums["cases"])
        means["dice_global"] = ratio(2 * sums[f"{name}/I"], sums[f"{name}/S"])
        pooled[name] = means
    counts = {f"{c}_{t:g}": sums[f"{c}_{t:g}"] for t in THRESHOLDS for c in ("TP", "FP", "FN")}
    pooled["detection_counts"] = counts
    pooled["dice_global_sums"] = {f"{n}_{k}": sums[f"{n}/{k}"] for n in ("lesion", "liver") for k in ("I", "S")}
    pooled["detection"] = {}
    for threshold, suffix in ((0.5, ""), (0.0, "_greater_zero")):
        tp, fp, fn, hits = (sums[f"{c}_{threshold:g}"] for c in ("TP", "FP", "FN", "hits"))
        rates = {"precision": ratio(hits, hits + fp), "recall": ratio(tp, tp + fn)}
        for metric, value in rates.items():
            pooled["detection"][metric + suffix] = np.where(np.isnan(value) & official, 0.0, value)
    burden = np.where(np.isneginf(peaks["burden"]), np.nan, peaks["burden"])
    rmse = np.sqrt(ratio(sums["burden_squares"], sums["burdens"]))
    pooled["tumor_burden"] = {"tumor_burden_rmse": rmse, "tumor_burden_max": burden}
    return pooled


def _arrays(values: dict[str, float]) -> dict[str, np.ndarray]:
    return {name: np.array([value]) for name, value in values.items()}


def _detections(
    pair: Pair, tumours: tuple[int, ...], official: bool, threads: int
) -> tuple[list[Detection], list[dict[str, float]]]:
    """Detections at both thresholds, and the overlap of each object detected at 0.5."""
    (table,) = pair.memo.recall(f"shared lesions {tumours}", lambda: [_shared(pair.region(tumours).masks)])
    sizes = table[:, 1:].sum(axis=0), table[1:].sum(axis=1)
    detections = [detect(*sizes, table[1:, 1:], threshold, official) for threshold in THRESHOLDS]
    if official and detections[-1].tp <= 0:  # the scorer measures lesions of a volume only if its count is above 0
        return detections, []
    (numbers,) = pair.memo.recall(
        f"lesion objects {tumours} {official}",
        lambda: [_objects(pair.region(tumours).masks, detections[-1], official, threads)],
    )
    return detections, [dict(zip(_OBJECT, row, strict=True)) for row in numbers.tolist()]


def _shared(masks: Masks) -> np.ndarray:
    """(P + 1, T + 1) voxels that each predicted and each true component share; row and column 0 are background."""
    (truth, n_truth), (prediction, n_prediction) = scan_order(masks.truth), scan_order(masks.prediction)
    either = np.flatnonzero(masks.truth | masks.prediction)
    codes = prediction.ravel()[either].astype(np.int64) * (n_truth + 1) + truth.ravel()[either]
    table = np.bincount(codes, minlength=(n_truth + 1) * (n_prediction + 1))
    return np.asarray(table).reshape(n_prediction + 1, n_truth + 1)


def _objects(masks: Masks, found: Detection, official: bool, threads: int) -> np.ndarray:
    """(N, 7) overlap and distances of each object detected."""
    truth, prediction = scan_order(masks.truth)[0], scan_order(masks.prediction)[0]
    boxes = ndimage.find_objects(truth), ndimage.find_objects(prediction)
    rows = []
    for predicted, true in found.groups:
        around = [boxes[0][i - 1] for i in true] + [boxes[1][i - 1] for i in predicted]
        start = [min(box[axis].start for box in around) for axis in range(3)]
        stop = [max(box[axis].stop for box in around) for axis in range(3)]
        cut = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        chosen = np.isin(truth[cut], true), np.isin(prediction[cut], predicted)
        crop = Masks(chosen[0], chosen[1], masks.grid.cropped(start, stop))
        distances = partial(crop.voxels, connectivity=2, threads=threads)
        rows.append([*_object(mask_counts(*chosen), distances, official).values()])
    return np.array(rows, np.float64).reshape(-1, len(_OBJECT))


def _liver(pair: Pair, official: bool, threads: int) -> dict[str, float]:
    region = pair.region(_LIVER)
    return _object(region.counts, partial(region.voxels, connectivity=2, threads=threads), official)


def scan_order(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Components of 6 neighbours, numbered by their first voxel in array order as SciPy numbers them, and how many."""
    if not mask.any():
        return np.zeros(mask.shape, np.int32), 0
    labels, count = components_of(mask, 6)
    inside = labels[mask]
    _, first = np.unique(inside, return_index=True)
    table = np.zeros(count + 1, np.int32)
    table[inside[np.sort(first)]] = np.arange(1, count + 1)
    numbered = np.zeros(mask.shape, np.int32)
    numbered[mask] = table[inside]
    return numbered, int(count)


def _object(counts: Counts, measure: Callable[[], VoxelDistances], official: bool) -> dict[str, float]:
    """Overlap and distances of one object: VOE = 1 - Jaccard, RVD = (|P| - |G|) / |G|, surface of 18 neighbours."""
    if not counts.truth or not counts.prediction:
        return _worst(official)
    dice = ratio(2 * counts.tp, counts.truth + counts.prediction)
    jaccard = dice / (2 - dice)
    distances = measure()
    numbers = (
        dice,
        jaccard,
        1 - jaccard,
        (counts.prediction - counts.truth) / counts.truth,
        distances.assd_mm(),
        distances.rmsd_mm(),
        distances.hausdorff_mm(),
    )
    return dict(zip(_OBJECT, numbers, strict=True))


def _worst(official: bool) -> dict[str, float]:
    return {metric: np.nan if value == LARGE and not official else value for metric, value in _WORST.items()}


def _burden_difference(
    lesion_truth: int, liver_truth: int, lesion_prediction: int, liver_prediction: int, has_liver: bool, official: bool
) -> float:
    """Lesion share of the liver, truth less prediction."""
    missing = LARGE if official else float("nan")
    predicted = ratio(lesion_prediction, liver_prediction) if has_liver else missing
    return float(ratio(lesion_truth, liver_truth) - predicted)


def _reasons(score: CaseScore, liver_voxels: int) -> dict[str, str]:
    reasons = {}
    for region, metrics in score.values.items():
        for metric, value in metrics.items():
            if not np.isfinite(value):
                burden = "the truth holds no liver" if not liver_voxels else "the prediction holds no liver"
                empty = "no lesion was detected" if region == "lesion" else "truth or prediction holds no liver"
                if metric == "dice_global":
                    empty = "truth and prediction are both empty"
                if region == "detection":
                    empty = "there is nothing to count"
                reasons[f"{region}/{metric}"] = burden if region == "tumor_burden" else empty
    return reasons


_EMPTY = (
    "LiTS: lesion Dice per case is 1 where both sides are empty, 0 where one is; a missing liver scores 0 and 9001 mm; "
    "lesion overlap counts detected lesions only. The official numbers are the pooled ones."
)
_EMPTY_CORRECTED = (
    "lits-corrected: as LiTS, but what cannot be measured is null and left out of means; read the pooled numbers."
)

PROTOCOLS = (
    Protocol(
        "lits",
        "The LiTS scorer: Dice per case and global, VOE, RVD, ASSD, RMSD, MSD, detection, tumour burden, faults kept.",
        _EMPTY,
        "lits",
        score_lits,
        pool_lits,
        fixed=False,
    ),
    Protocol(
        "lits-corrected",
        "LiTS's metrics without its scorer's faults: true IoU, null instead of 9001, absolute burden errors.",
        _EMPTY_CORRECTED,
        "lits",
        partial(score_lits, official=False),
        partial(pool_lits, official=False),
        fixed=False,
    ),
)
