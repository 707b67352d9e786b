"""Scores for any labels: everything at once (``plain``), nnU-Net's summary, the Medical Segmentation Decathlon's.

Comes in: a Pair and a label scheme. Goes out: a CaseScore a protocol.
Sources: nnU-Net v2 ``nnunetv2/evaluation/evaluate_predictions.py`` (0e495086); MSD uses DeepMind's surface distance.
"""

from __future__ import annotations

import numpy as np

from hilum.judge.lesions import bins, lesion_counts, lesion_lists, lesion_rates
from hilum.judge.overlap import UNDEFINED, Counts, dice, iou, overlap_metrics, ratio
from hilum.judge.pair import Pair, Region
from hilum.judge.scoring import CaseScore, Protocol, ScoreOptions, Sums
from hilum.labels import LabelScheme

_ONE_EMPTY = "truth or prediction is empty: there is no surface to measure to"
_BOTH_EMPTY = "truth and prediction are both empty"


def score_plain(pair: Pair, scheme: LabelScheme, options: ScoreOptions) -> CaseScore:
    """Overlap, volumes, distances and lesions of every region of the scheme."""
    score = CaseScore({})
    for region in scheme.regions:
        counts, found = pair.counts(region.labels), pair.region(region.labels)
        values = _counted(counts) | _volumes(counts, pair.grid.voxel_volume_mm3 / 1000)
        values |= surface_metrics(found, options)
        if all(scheme.label(value).is_lesion for value in region.labels):
            values |= _lesions(score, region.name, found, options)
        score.values[region.name] = values
        score.truth_voxels[region.name] = counts.truth
        score.sums.update({f"{region.name}/{name}": float(values[name]) for name in ("TP", "FP", "FN", "TN")})
        score.sums.update(_presence(region.name, counts))
        score.reasons.update(_reasons(region.name, values, counts))
    return score


def surface_metrics(region: Region, options: ScoreOptions) -> dict[str, float]:
    """Both surface models' numbers by name: ``nsd_*``, ``robust_*``, ``asd_*`` DeepMind's, ``medpy_*`` MedPy's."""
    empty = not region.counts.truth, not region.counts.prediction
    names = [f"nsd_{tolerance:g}mm" for tolerance in options.tolerances_mm]
    if all(empty):
        return dict.fromkeys((*names, *_DISTANCES), float("nan"))
    if any(empty):
        return dict.fromkeys(names, 0.0) | dict.fromkeys(_DISTANCES, float("inf"))
    surfels, voxels = region.surfels(threads=options.threads), region.voxels(threads=options.threads)
    values = {f"nsd_{tolerance:g}mm": surfels.nsd(tolerance) for tolerance in options.tolerances_mm}
    averages, areas = surfels.average_mm(), surfels.areas_mm2()
    numbers = (
        surfels.robust_hausdorff_mm(95),
        surfels.robust_hausdorff_mm(100),
        *averages,
        *areas,
        voxels.hausdorff_mm(),
        voxels.hausdorff_mm(95),
        voxels.assd_mm(),
        voxels.rmsd_mm(),
    )
    return values | dict(zip(_DISTANCES, numbers, strict=True))


_DISTANCES = (
    "robust_hd95_mm",
    "robust_hd100_mm",
    "asd_gt_to_pred_mm",
    "asd_pred_to_gt_mm",
    "surface_area_gt_mm2",
    "surface_area_pred_mm2",
    "medpy_hd_mm",
    "medpy_hd95_mm",
    "medpy_assd_mm",
    "medpy_rmsd_mm",
)


def score_nnunet(pair: Pair, scheme: LabelScheme, options: ScoreOptions) -> CaseScore:
    """Counts, Dice and IoU of every label and of every region, keyed as nnU-Net's summary.json does."""
    score = CaseScore({})
    keys: list[tuple[str, tuple[int, ...], str]] = [(str(value), (value,), "labels") for value in scheme.values]
    keys += [(str(tuple(region.labels)), region.labels, "regions") for region in scheme.regions]
    for key, labels, group in keys:
        c = pair.counts(labels)
        values = {"Dice": dice(c), "IoU": iou(c), "TP": c.tp, "FP": c.fp, "FN": c.fn, "TN": c.tn}
        values |= {"n_pred": c.prediction, "n_ref": c.truth}
        score.values[key] = {name: float(value) for name, value in values.items()}
        score.truth_voxels[key] = c.truth
        score.reasons.update({f"{key}/{name}": _BOTH_EMPTY for name in ("Dice", "IoU") if np.isnan(values[name])})
        for name, value in values.items():
            defined = not np.isnan(value)
            score.sums[f"{group}/{key}/{name}/sum"] = float(value) if defined else 0.0
            score.sums[f"{group}/{key}/{name}/n"] = float(defined)
    return score


def pool_nnunet(sums: Sums, peaks: Sums) -> dict[str, dict[str, np.ndarray]]:
    """``foreground_mean``: the plain mean of the labels' (or regions') means over cases."""
    means: dict[str, dict[str, list[np.ndarray]]] = {}
    for name in sums:
        group, key, metric, kind = name.split("/")
        if kind == "sum":
            mean = ratio(sums[name], sums[f"{group}/{key}/{metric}/n"])
            means.setdefault(group, {}).setdefault(metric, []).append(mean)
    return {
        f"foreground_mean_{group}": {metric: np.mean(values, axis=0) for metric, values in metrics.items()}
        for group, metrics in means.items()
    }


def score_msd(pair: Pair, scheme: LabelScheme, options: ScoreOptions) -> CaseScore:
    """Dice and NSD of every label by itself (MSD's liver is liver without its tumours)."""
    score = CaseScore({})
    for label in scheme.labels:
        name = label.name.replace(" ", "_")
        counts = pair.counts((label.value,))
        surface = surface_metrics(pair.region((label.value,)), options)
        values = {"dice": dice(counts)} | {key: mm for key, mm in surface.items() if key.startswith("nsd_")}
        score.values[name] = values
        score.truth_voxels[name] = counts.truth
        score.reasons.update({f"{name}/{key}": _BOTH_EMPTY for key, value in values.items() if np.isnan(value)})
    return score


def _lesions(score: CaseScore, name: str, region: Region, options: ScoreOptions) -> dict[str, float]:
    """Lesion metrics of a region that is nothing but lesions; lists and sums go into the score."""
    lesions = region.lesions(options.connectivity)
    counts = lesion_counts(lesions, options.lesion_iou, options.diameters_mm)
    names = tuple(bin_name for bin_name, _, _ in bins(options.diameters_mm))
    score.lesions[name] = lesion_lists(lesions)
    score.sums.update({f"{name}/lesions/{key}": value for key, value in counts.items()})
    values = {"lesions_gt": counts["gt"], "lesions_pred": counts["pred"]}
    values |= {"lesions_missed": counts["gt"] - counts["touched"], "lesions_invented": counts["invented"]}
    rates = {key: float(value) for key, value in lesion_rates(counts, names).items()}
    score.reasons.update({f"{name}/{key}": "there are no such lesions" for key, v in rates.items() if np.isnan(v)})
    return values | rates


def _counted(counts: Counts) -> dict[str, float]:
    four = {"TP": counts.tp, "FP": counts.fp, "FN": counts.fn, "TN": counts.tn}
    return {name: float(n) for name, n in four.items()} | overlap_metrics(counts)


def _volumes(counts: Counts, voxel_ml: float) -> dict[str, float]:
    error = counts.prediction - counts.truth
    return {
        "volume_gt_ml": counts.truth * voxel_ml,
        "volume_pred_ml": counts.prediction * voxel_ml,
        "volume_error_ml": error * voxel_ml,
        "relative_volume_error": ratio(error, counts.truth),
    }


def _presence(name: str, counts: Counts) -> dict[str, float]:
    truth, prediction = bool(counts.truth), bool(counts.prediction)
    cells = {"tp": truth and prediction, "fn": truth and not prediction, "fp": prediction and not truth}
    cells["tn"] = not truth and not prediction
    return {f"{name}/present/{cell}": float(value) for cell, value in cells.items()}


def _reasons(name: str, values: dict[str, float], counts: Counts) -> dict[str, str]:
    distance = _ONE_EMPTY if counts.truth or counts.prediction else _BOTH_EMPTY
    known = UNDEFINED | {"relative_volume_error": "the truth is empty"}
    return {
        f"{name}/{key}": known.get(key, distance)
        for key, value in values.items()
        if not np.isfinite(value) and not key.startswith(("lesion", "panoptic"))
    }


def pool_plain(sums: Sums, peaks: Sums) -> dict[str, dict[str, np.ndarray]]:
    """Overlap of all cases' voxels together, and whether the region is found in the cases that have it."""
    pooled: dict[str, dict[str, np.ndarray]] = {}
    for name in dict.fromkeys(key.split("/")[0] for key in sums):
        counts = Counts(sums[f"{name}/TP"], sums[f"{name}/FP"], sums[f"{name}/FN"], sums[f"{name}/TN"])
        present = {cell: sums[f"{name}/present/{cell}"] for cell in ("tp", "fp", "fn", "tn")}
        pooled[name] = overlap_metrics(counts) | {
            "case_sensitivity": ratio(present["tp"], present["tp"] + present["fn"]),
            "case_specificity": ratio(present["tn"], present["tn"] + present["fp"]),
        }
        lesions = {key.split("/")[2]: value for key, value in sums.items() if key.startswith(f"{name}/lesions/")}
        if lesions:
            names = tuple(key.removeprefix("gt_") for key in lesions if key.startswith("gt_"))
            pooled[name] |= lesion_rates(lesions, names)
    return pooled


PROTOCOLS = (
    Protocol(
        "plain",
        "Overlap, volumes, both surface models and lesions of every region of the scheme.",
        "plain: 0/0 is null and left out of means; where one side is empty, NSD is 0, distances are infinite (null).",
        "kits",
        score_plain,
        pool_plain,
        fixed=False,
        same_grid=True,
        takes=("tolerances_mm", "lesion_iou", "connectivity", "diameters_mm"),
    ),
    Protocol(
        "nnunet",
        "nnU-Net v2's summary: counts, Dice, IoU of every label and region; arrays compared in file order.",
        "nnU-Net: Dice and IoU are null and left out of means where both sides are empty, 0 where one is.",
        "kits",
        score_nnunet,
        pool_nnunet,
        fixed=False,
    ),
    Protocol(
        "msd",
        "Dice and NSD (DeepMind) of every label by itself, at the tolerances given.",
        "msd: null and left out of means where both sides are empty, 0 where one is (no public rule was found).",
        "lits",
        score_msd,
        fixed=False,
        takes=("tolerances_mm",),
    ),
)
