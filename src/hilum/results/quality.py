"""The gate of a case: should a person look at this one, and why?

Comes in: measurements, the label map and, if there is one, the scan; perhaps uncertainty and follow-up. Goes out: the
table ``quality`` of ``measurements.json``: a list of checks, each ``ok``, ``look`` or ``unknown`` with its value, limit
and sentence, and ``look`` with ``why`` for the whole case. It changes no number.

Sources. Noise: Immerkaer, Computer Vision and Image Understanding 64 (1996) 300-302, with the median for the mean, over
soft tissue. Phase: Yuh and Cohan, AJR 173 (1999) 747-755 (cortex brighter than medulla at 25 to 70 s, both alike at 80
to 180 s). Organ volumes: kidney parenchyma, medians of men and women of a general population by MRI, and their spread
(J Clin Med 13, 2024, 769; 1815 persons): 159 +- 36 mL; liver: means of both sexes in Geraghty et al., Abdom Imaging 29
(2004) 482-490, with the relative spread of Jasper, JCDR 13 (2019) TC01 and the distance of the sexes: 1560 +- 305 mL;
spleen: Caglar et al., Folia Morphol 73 (2014), 331-338, 212 adults: 198 +- 88 mL. Slices: RECIST 1.1 measures lesions
of 10 mm on slices of 5 mm or less, else of twice the slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from hilum.components import box_of
from hilum.files import plain
from hilum.labels import LabelScheme
from hilum.results.summary import title
from hilum.volume import Volume, require_same_grid

NORMAL_ML = {"kidney": (159.0, 36.0), "liver": (1560.0, 305.0), "spleen": (198.0, 88.0)}
MOST_Z = 3.0
THICKEST_MM = 5.0
MOST_NOISE_HU = 30.0
NATIVE_HU = 60.0  # kidneys without contrast medium have 30 to 40 HU
NATIVE_AORTA_HU, ARTERIAL_AORTA_HU = 80.0, 200.0  # blood has 30 to 50 HU; between the peaks of the two phases
LAYERED = 0.45  # of the median: phantoms' cortex and medulla give 0.62 to 0.85, one even tissue 0.13 to 0.33
LEAST_CONFIDENCE = 0.75
MOST_DISAGREEMENT = 0.2
_PLANES = 24  # slices that the noise is estimated on
Check = dict[str, Any]


def quality(
    labels: Volume,
    table: Mapping[str, Any],
    scheme: LabelScheme,
    scan: Volume | None = None,
    *,
    unsure: Mapping[str, Any] | None = None,
    followup: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All checks of one case.

    Args:
        labels: the label map, any axis order.
        table: its measurements.
        scheme: what the labels mean.
        scan: HU on the same grid.
        unsure: what ``uncertainty`` gave.
        followup: what ``follow_up`` gave.

    Returns:
        ``look`` (bool), ``why`` (sentences), ``phase`` (``guess``, ``reason``), ``checks``.
    """
    inside = labels.oriented()
    hu = None
    if scan is not None:
        scan = scan.oriented()
        require_same_grid(inside, scan)
        hu = scan.array
    checks: list[Check] = [_found(table), *_field_of_view(table), _thickness(inside, table), *_volumes(table)]
    phase = _phase(inside, hu, table, scheme)
    checks.append(_check("phase", None, None, "ok" if hu is not None else "unknown", phase["reason"]))
    checks.append(_noise(hu))
    checks += _doubts(unsure) + _follow(followup)
    why = [check["text"] for check in checks if check["state"] == "look"]
    answer: dict[str, Any] = plain({"look": bool(why), "why": why, "phase": phase, "checks": checks})
    return answer


def noise_hu(hu_DHW: np.ndarray) -> float | None:
    """The standard deviation of a scan's noise in soft tissue, HU; None where there is too little of it.

    The mask [[1, -2, 1], [-2, 4, -2], [1, -2, 1]] answers to noise of deviation s with 6 s and to flat tissue and ramps
    with 0; its median size over soft tissue (-50 to 200 HU) is 0.6745 of that.
    """
    depth = hu_DHW.shape[0]
    if min(hu_DHW.shape[1:]) < 3:
        return None
    found = []
    for z in np.unique(np.linspace(0, depth - 1, min(depth, _PLANES)).round().astype(int)):
        plane = hu_DHW[z].astype(np.float32)
        second = plane[:, :-2] - 2 * plane[:, 1:-1] + plane[:, 2:]
        mask = second[:-2] - 2 * second[1:-1] + second[2:]
        middle = plane[1:-1, 1:-1]
        found.append(np.abs(mask[(middle > -50) & (middle < 200)]))
    values = np.concatenate(found)
    return float(np.median(values) / (6 * 0.6745)) if values.size >= 1000 else None


def _check(name: str, value: Any, limit: Any, state: str, text: str) -> Check:
    return {"check": name, "state": state, "value": value, "limit": limit, "text": text}


def _found(table: Mapping[str, Any]) -> Check:
    if not table["organs"]:
        return _check("organs", 0, 1, "look", "No organ was found.")
    return _check("organs", len(table["organs"]), 1, "ok", "Organs were found.")


def _field_of_view(table: Mapping[str, Any]) -> list[Check]:
    cut = [title(x) for x in table["organs"] if x["cut_by_field_of_view"]]
    if not table["organs"]:
        return []
    if cut:
        text = f"The edge of the scan cuts the {' and the '.join(cut)}."
        return [_check("field of view", len(cut), 0, "look", text)]
    return [_check("field of view", 0, 0, "ok", "No organ is cut by the edge of the scan.")]


def _thickness(inside: Volume, table: Mapping[str, Any]) -> Check:
    thick = inside.spacing_mm[0]
    small = [x["id"] for x in table["lesions"] if x["long_axis_mm"] < 2 * thick]
    if thick > THICKEST_MM + 0.01:
        text = f"Slices lie {thick:.1f} mm apart: lesions below {2 * thick:.0f} mm cannot be measured well."
        return _check("slice spacing", thick, THICKEST_MM, "look", text)
    text = f"Slices lie {thick:.1f} mm apart."
    if small:
        text = f"Slices lie {thick:.1f} mm apart; smaller than two slices: lesion {', '.join(map(str, small))}."
    return _check("slice spacing", thick, THICKEST_MM, "ok", text)


def _volumes(table: Mapping[str, Any]) -> list[Check]:
    """Each whole organ's parenchyma against what adults have."""
    checks = []
    for organ in table["organs"]:
        if organ["name"] not in NORMAL_ML:
            continue
        mean, sd = NORMAL_ML[organ["name"]]
        z = (organ["parenchyma_ml"] - mean) / sd
        name = title(organ)
        text = f"The {name} has {organ['parenchyma_ml']:.0f} mL of its own tissue (adults {mean:.0f} ± {sd:.0f} mL)."
        cut = organ["cut_by_field_of_view"] and z < 0
        state = "unknown" if cut else "look" if abs(z) > MOST_Z else "ok"
        checks.append(_check(f"volume of the {name}", round(z, 2), MOST_Z, state, text))
    return checks


def _phase(inside: Volume, hu: np.ndarray | None, table: Mapping[str, Any], scheme: LabelScheme) -> dict[str, Any]:
    """The contrast phase by the kidney's spread of density, else by a labelled aorta, else by the liver."""
    if hu is None:
        return {"guess": None, "reason": "The contrast phase cannot be guessed without the scan."}
    kidney = _spread(inside, hu, scheme.of("kidney", "organ"))
    means = {x["name"]: x["hu_mean"] for x in table["organs"] if x["hu_mean"] is not None}
    if kidney is not None:
        low, middle, high = kidney
        facts = f"kidney {middle:.0f} HU, four fifths of it from {low:.0f} to {high:.0f}"
        facts += f"; aorta {means['aorta']:.0f} HU" if "aorta" in means else ""
        if middle < NATIVE_HU:
            return {"guess": "none", "reason": f"No contrast medium seems to be given ({facts})."}
        grain = 2.56 * (noise_hu(hu) or 0.0)  # four fifths of plain noise
        if max(0.0, (high - low) ** 2 - grain**2) ** 0.5 > LAYERED * middle:
            return {"guess": "corticomedullary", "reason": f"Corticomedullary phase, as it seems ({facts})."}
        return {"guess": "nephrographic or later", "reason": f"Nephrographic phase or later, as it seems ({facts})."}
    if "aorta" in means:
        facts = f"aorta {means['aorta']:.0f} HU"
        if means["aorta"] < NATIVE_AORTA_HU:
            return {"guess": "none", "reason": f"No contrast medium seems to be given ({facts})."}
        if means["aorta"] >= ARTERIAL_AORTA_HU:
            return {"guess": "arterial", "reason": f"Arterial phase, as it seems ({facts})."}
        return {"guess": "portal venous or later", "reason": f"Portal venous phase or later, as it seems ({facts})."}
    if "liver" in means:
        facts = f"liver {means['liver']:.0f} HU"
        if means["liver"] < 75:
            return {
                "guess": "none or arterial",
                "reason": f"No contrast medium or an early phase, as it seems ({facts}).",
            }
        return {"guess": "portal venous", "reason": f"Portal venous phase, as it seems ({facts})."}
    return {"guess": None, "reason": "No label tells the contrast phase."}


def _spread(inside: Volume, hu: np.ndarray, values: Sequence[int]) -> tuple[float, float, float] | None:
    """HU of the 10th, 50th and 90th percentile 3 mm and more below the organ's surface; None if too few."""
    box = box_of(inside.array, values)
    if box is None:
        return None
    steps = tuple(max(1, round(1.5 / s)) for s in inside.spacing_mm)
    cut = tuple(slice(part.start, part.stop, step) for part, step in zip(box, steps, strict=True))
    mask = np.pad(np.isin(inside.array[cut], values), 1)
    spacing = [s * step for s, step in zip(inside.spacing_mm, steps, strict=True)]
    depth = distance_transform_edt(mask, sampling=spacing)[1:-1, 1:-1, 1:-1]
    deep = hu[cut][depth >= 3]
    if deep.size < 100:
        return None
    low, middle, high = (float(x) for x in np.percentile(deep, [10, 50, 90]))
    return low, middle, high


def _noise(hu: np.ndarray | None) -> Check:
    value = None if hu is None else noise_hu(hu)
    if value is None:
        return _check("noise", None, MOST_NOISE_HU, "unknown", "The noise cannot be estimated without the scan.")
    text = f"Noise of about {value:.0f} HU in soft tissue."
    return _check("noise", round(value, 1), MOST_NOISE_HU, "look" if value > MOST_NOISE_HU else "ok", text)


def _doubts(unsure: Mapping[str, Any] | None) -> list[Check]:
    if unsure is None:
        return []
    checks = []
    for entry in unsure["lesions"]:
        share = entry["confidence"]
        text = f"Lesion {entry['id']} has a confidence of {share:.2f} (from {unsure['from']})."
        state = "look" if share < LEAST_CONFIDENCE else "ok"
        checks.append(_check(f"confidence of lesion {entry['id']}", share, LEAST_CONFIDENCE, state, text))
    for name, value in (unsure.get("disagreement") or {}).items():
        if value is not None:
            text = f"The folds disagree about {name}: mean Dice of pairs {1 - value:.2f}."
            if value <= MOST_DISAGREEMENT:
                text = f"The folds agree about {name}: mean Dice of pairs {1 - value:.2f}."
            state = "look" if value > MOST_DISAGREEMENT else "ok"
            checks.append(_check(f"fold disagreement about {name}", value, MOST_DISAGREEMENT, state, text))
    return checks


def _follow(followup: Mapping[str, Any] | None) -> list[Check]:
    return [_check("follow-up", None, None, "look", text) for text in (followup or {}).get("warnings", [])]
