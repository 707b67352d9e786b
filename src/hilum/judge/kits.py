"""The kidney tumour challenges: KiTS19, KiTS21 and KiTS23, as their own code scores them.

Comes in: a Pair of KiTS label maps (1 kidney, 2 tumour, 3 cyst). Goes out: the challenge's numbers, bit for bit.
Sources: neheller/kits19 ``starter_code/evaluation.py`` (456b2934), neheller/kits23 ``kits23/evaluation/metrics.py`` and
``kits23/configuration/labels.py`` (c1088353); KiTS21's code defines the same regions, tolerances and empty rules.
"""

from __future__ import annotations

import numpy as np

from hilum.judge.overlap import dice, ratio
from hilum.judge.pair import Pair
from hilum.judge.scoring import CaseScore, Protocol, ScoreOptions, Sums
from hilum.labels import LabelScheme

# hierarchical evaluation classes: labels and surface Dice tolerance in mm
REGIONS: dict[str, tuple[tuple[int, ...], float]] = {
    "kidney_and_mass": ((1, 2, 3), 1.0330772532390826),
    "mass": ((2, 3), 1.1328796488598762),
    "tumor": ((2,), 1.1498198361434828),
}
# KiTS19 tests for "> 0" and "> 1", so that labels it does not know count as tumour
_KIDNEY_19, _TUMOUR_19 = range(1, 256), range(2, 256)


def score_kits23(pair: Pair, scheme: LabelScheme, options: ScoreOptions) -> CaseScore:
    """Dice and surface Dice of the three nested regions, with the spacing of the *prediction's* header."""
    values, voxels, sums = {}, {}, {"cases": 1.0}
    widest_mm = max(tolerance_mm for _, tolerance_mm in REGIONS.values())
    for name, (labels, tolerance_mm) in REGIONS.items():
        counts = pair.counts(labels)
        voxels[name] = counts.truth
        if counts.truth and counts.prediction:
            # without cysts, masses and tumour are one region, measured once
            distances = pair.region(labels).surfels(pair.prediction_spacing_mm, options.threads, widest_mm)
            values[name] = {"dice": dice(counts), "surface_dice": distances.nsd(tolerance_mm)}
        else:
            both = float(not counts.truth and not counts.prediction)
            values[name] = {"dice": both, "surface_dice": both}
    for metric in ("dice", "surface_dice"):
        sums[metric] = float(np.mean([values[name][metric] for name in REGIONS]))
    return CaseScore(values, sums=sums, truth_voxels=voxels)


def pool_kits23(sums: Sums, peaks: Sums) -> dict[str, dict[str, np.ndarray]]:
    """The two numbers that rank a team: the means of the three regions' mean Dice and mean surface Dice."""
    return {
        "all_regions": {
            "mean_dice": ratio(sums["dice"], sums["cases"]),
            "mean_surface_dice": ratio(sums["surface_dice"], sums["cases"]),
        }
    }


def score_kits19(pair: Pair, scheme: LabelScheme, options: ScoreOptions) -> CaseScore:
    """Dice of kidney with tumour ("tk") and of tumour ("tu"), cysts being kidney, and their mean."""
    truth, prediction = pair.values_seen()
    kidney, tumour = pair.counts(_KIDNEY_19), pair.counts([v for v in _TUMOUR_19 if v != 3])
    score = _kits19(pair, dice(kidney), dice(tumour), kidney.truth, tumour.truth)
    if 3 in truth or 3 in prediction:
        note = "label 3 (cyst) was counted as kidney, which KiTS19's labels do"
        return CaseScore(score.values, score.reasons, score.sums, truth_voxels=score.truth_voxels, warnings=(note,))
    return score


def score_kits19_raw(pair: Pair, scheme: LabelScheme, options: ScoreOptions) -> CaseScore:
    """The same without turning cysts into kidney: the code as it stands, where any label above 1 is tumour."""
    kidney, tumour = pair.counts(_KIDNEY_19), pair.counts(_TUMOUR_19)
    return _kits19(pair, dice(kidney), dice(tumour), kidney.truth, tumour.truth)


def _kits19(pair: Pair, tk: float, tu: float, kidney_voxels: int, tumour_voxels: int) -> CaseScore:
    values = {"kits19": {"tk_dice": tk, "tu_dice": tu, "composite": (tk + tu) / 2}}
    defined = not np.isnan(tk + tu)
    sums = {"cases": float(defined), "tk": tk if defined else 0.0, "tu": tu if defined else 0.0}
    empty = "truth and prediction are both empty (the official code divides 0 by 0)"
    reasons = {f"kits19/{metric}": empty for metric, value in values["kits19"].items() if np.isnan(value)}
    return CaseScore(values, reasons, sums, truth_voxels={"kidney_and_mass": kidney_voxels, "tumor": tumour_voxels})


def pool_kits19(sums: Sums, peaks: Sums) -> dict[str, dict[str, np.ndarray]]:
    """Means over the cases in which both Dice are defined, so that the composite is the mean of the two."""
    tk, tu = ratio(sums["tk"], sums["cases"]), ratio(sums["tu"], sums["cases"])
    return {"kits19": {"tk_dice": tk, "tu_dice": tu, "composite": (tk + tu) / 2}}


_ONE_OR_ZERO = "KiTS21/23: Dice and surface Dice are 1 where truth and prediction are both empty, 0 where one is."
_NAN_19 = "KiTS19: Dice is null and left out of means where truth and prediction are both empty, 0 where one is."

PROTOCOLS = (
    Protocol(
        "kits23",
        "KiTS23's Dice and surface Dice of kidney and masses, masses, tumour; spacing from the prediction's header.",
        _ONE_OR_ZERO,
        "kits",
        score_kits23,
        pool_kits23,
    ),
    Protocol(
        "kits21",
        "KiTS21's Dice and surface Dice, which are KiTS23's, against one segmentation a case.",
        _ONE_OR_ZERO,
        "kits",
        score_kits23,
        pool_kits23,
    ),
    Protocol(
        "kits21-samples",
        "KiTS21's test scoring: kits21 against every sampled segmentation of a case, averaged over them.",
        _ONE_OR_ZERO,
        "kits",
        score_kits23,
        pool_kits23,
        samples=True,
    ),
    Protocol(
        "kits19",
        "KiTS19's kidney (with tumour) and tumour Dice and their mean; cysts are kidney.",
        _NAN_19,
        "kits",
        score_kits19,
        pool_kits19,
    ),
    Protocol(
        "kits19-raw",
        "KiTS19's code on labels as they are: every label above 1, cysts too, is tumour.",
        _NAN_19,
        "kits",
        score_kits19_raw,
        pool_kits19,
    ),
)
