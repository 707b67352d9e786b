"""What the pages say in English: sentences, names of metrics, numbers with their units.

Comes in: measurements, scores, bare keys. Goes out: text (not escaped: the templates do that). It knows no HTML.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hilum.pages.units import DASH, joined, millimetres, shortened

NOT_A_DEVICE = "Research software, not a medical device; not for diagnosis."

# the fixed words of the pages of a case and of many cases
TEXT = {
    "kind": "CT segmentation report",
    "look": "Look at this one",
    "no_look": "No check asks for a second look.",
    "checks_text": "Checks: field of view, slices, noise, contrast phase, organ volumes, doubts where known.",
    "warnings": "Also",
    "organs": "Organs",
    "organ": "Organ",
    "volume": "Volume",
    "own_tissue": "Without lesions",
    "lesion_volume": "Lesions",
    "axes": "Length × width × thickness",
    "density": "Density",
    "mean_sd": "mean ± SD",
    "lesions": "Lesions",
    "number": "No.",
    "lesion": "Lesion",
    "where": "Where",
    "diameters": "Long × short axis",
    "long_axis": "Long axis",
    "interval": "Interval",
    "confidence": "Confidence",
    "exophytic": "Exophytic",
    "t_size": "T by size",
    "nephrometry": "R.E.N.A.L.",
    "widest": "Widest on slice",
    "each": "Each lesion",
    "scene": "In three dimensions",
    "scene_help": "Drag or use the arrow keys to turn, + and − to zoom, Home to begin again.",
    "scene_label": "Organ surfaces that can be turned",
    "scene_parts": "Shown",
    "followup": "Since the previous date",
    "target": "Sum of target diameters: {:.0f} mm, now {:.0f} mm.",
    "suggestion": "a suggestion from two dates; no response assessment",
    "before": "Before",
    "now": "Now",
    "change": "Change",
    "doubling": "Doubling time",
    "grid_error": "Explained by the grid",
    "status": "What became of it",
    "pictures": "Pictures",
    "pictures_text": "Each plane shows the slice with the largest area of tumour, else of cyst, else the one that "
    "shows most of every organ. Soft-tissue window, −160 to 240 HU. The patient’s right (R) is on the left of the "
    "picture.",
    "labels": "Labels:",
    "overlay": "Overlay:",
    "truth": "Against the truth",
    "method": "How it was measured",
    "definitions": "Formulas and sources of the scores",
    "checks": "All checks",
    "scan": "Scan",
    "model": "Model",
    "run": "Run",
    "cohort": "Many cases",
    "cases": "Cases",
    "case": "Case",
    "tumours": "Tumours",
    "cysts": "Cysts",
    "largest": "Largest",
    "tumour_ml": "Tumour",
    "why": "Why",
    "failed": "Failed",
    "failed_link": "{} could not be measured: see below",
    "find": "Find cases",
    "only_look": "only those to look at",
    "found_of": "{} of {} shown",
    "sorted": "Cases to look at come first, the oddest at the top; a heading sorts.",
    "place": "Place",
    "any_direction": "Longest in any direction",
    "composition": "Composition",
    "enhancement": "Enhancement",
    "necrosis": "Necrosis",
    "depth": "Below the surface",
    "contact": "Contact with the organ",
    "satellites": "Satellites",
    "t_stage": "T stage, by size only",
    "padua": "PADUA",
    "c_index": "C-index",
    "resection": "Resection",
    "axial": "{} mm, axial",
    "at_least": "at least ",
    "was": "{} {} (was {})",
    "new": "new",
    "gone": "{} (was {})",
    "vanished": "vanished",
    "lesion_number": "lesion {}",
    "split_not": "Split function estimate: not computable {}.",
    "split": "Split function estimate: {:.0f} % right, {:.0f} % left ({}).",
    "same": "the same, within the grids’ error",
    "grew": "grew",
    "shrank": "shrank",
    "days_after": "{:.0f} days after ",
    "compared": "Compared with ",
    "previous": "the previous date",
    "found_again": "{} found again",
    "are_new": "{} new",
    "are_gone": "{} vanished",
    "moved": "{}: moved {:.0f} mm, turned {:.0f}°, Dice {:.2f}",
    "laid": "Organs laid on each other: {}.",
    "lesion_word": "lesion",
    "days": "{:.0f} days",
    "years": "{:.1f} years",
    "span": "{} to {} ({})",
    "not_computable": "not computable {}",
    "scores": "Scores",
    "complexity": ", {} complexity",
    "sinus_span": ", {} to {} by the sinus’s uncertainty",
    "margin": "{} with a margin of {:g} mm, {:.0f} % of own tissue left",
    "margin_alone": "{} with a margin of {:g} mm",
    "by": "{} (by {})",
    "of_volume": "{:.0f} % of the volume ({})",
    "more": "{} shown, tumours first; {} more in the table",
    "odd": "{:.1f} robust SD from the other cases",
    "slice": "{} slice {}",
    "panel_ct": "CT",
    "panel_segmentation": "Segmentation",
    "panel_outlines": "Outlines",
    "panel_truth": "Truth",
    "panel_prediction": "Prediction",
    "panel_overlay": "Overlay",
    "ct_alt": "{} of the CT, soft-tissue window.",
    "filled_alt": "{}: {} coloured.",
    "bare_alt": "{}: outlines only, so that the tissue stays visible.",
    "titled_alt": "{}, {}: {}.",
    "overlay_alt": "{}: agreement, what was missed and what was invented.",
    "spot_alt": "Axial slice {}, enlarged around the place: truth ({}) on the left, prediction ({}) on the right.",
    "nothing": "nothing",
    "surfaces": "Surfaces",
    "surfaces_alt": "Surfaces seen from the front, the patient’s right on the left: {}.",
    "and_more": "{} and more",
    "nothing_alt": "Nothing to show.",
    "by_model": "Model {}",
    "model_says": "Model: {}.",
    "made_by": "Made by hilum {}",
    "slice_of": "slice {} of {}",
    "metric": "Metric",
    "more_metrics": "{} more metrics",
    "region": "Region",
    "place_volume": "Volume (mL)",
    "place_diameter": "Diameter (mm)",
    "place_ras": "Place (mm, RAS)",
    "picture": "picture",
    "further_places": "Further places are in scores.json.",
    "spot_caption": "{}, {}, {} mL: truth left, prediction right",
    "missed": "Lesions missed",
    "invented": "Lesions invented",
    "found": "Lesions outlined differently",
    "places_in": "{} in {}",
    "place_word": "place",
    "case_word": "case",
    "spot_title": "Truth and prediction",
    "best_case": "Best case",
    "median_case": "Median case",
    "worst_case": "Worst case",
    "only_case": "The case",
    "agreement": "agreement",
    "was_missed": "missed",
    "was_invented": "invented",
    "swapped": "found with another label",
    "truth_outline": "outline of the truth",
    "lesions_word": "lesions {}",
}


def method(smallest: int) -> str:
    """How the numbers of a page came about."""
    return (
        "Volumes are counted voxels; an organ’s volume includes its lesions. A lesion is a connected piece (26 "
        f"neighbours) of at least {smallest} voxels of one label. The long axis is the longest diameter in an axial "
        "slice (as in RECIST 1.1), the short axis the longest at right angles to it in the same slice. Right and left "
        "are the patient’s. “At least” marks what reaches the edge of the scan. Exophytic is the share of a lesion "
        "outside the outline that the kidney would have without it. Scores follow their published rules; where an "
        "input lacks, the page "
        "says why there is none."
    )


def place(lesion: Mapping[str, Any]) -> str:
    """``left kidney, lower pole, anterior``."""
    words = [f"{lesion['side']} {lesion['organ']}".strip() or DASH]
    pole = lesion.get("pole")
    if pole:
        words.append("middle" if pole == "middle" else f"{pole} pole")
    face = lesion.get("anterior_posterior")
    if face in ("anterior", "posterior"):
        words.append(face)
    return ", ".join(words)


def lesion_title(lesion: Mapping[str, Any]) -> str:
    """``2. Tumour, left kidney``."""
    where = f"{lesion['side']} {lesion['organ']}".strip()
    return f"{lesion['id']}. {lesion['label'].capitalize()}" + (f", {where}" if where else "")


def unsure_how(unsure: Mapping[str, Any] | None) -> str:
    """What intervals and confidences come from."""
    if not unsure:
        return ""
    if unsure["from"] == "folds":
        return f"Confidence: the share of {counted(unsure['folds'], 'other label map')} that show the lesion."
    return (
        f"Interval: {unsure['level']:.0%} by the model’s probabilities, errors taken as wholly correlated; confidence: "
        "mean probability over the lesion. Both are as good as the model is calibrated."
    ).replace("%", " %")


def cohort_lead(cases: int, look: int, failed: int) -> str:
    """One sentence about many cases."""
    text = f"{counted(cases, 'case')}".capitalize()
    text += f"; {counted(look, 'case')} to look at" if look else "; no check asks for a second look"
    return f"{text}{f'; {failed} could not be measured' if failed else ''}."


def slice_title(plane: str, number: int) -> str:
    """``Axial, slice 12``."""
    return f"{plane.capitalize()}, slice {number}"


def lesion_alt(lesion: Mapping[str, Any], plane: str, number: int) -> str:
    """What a lesion's picture shows, for screen readers."""
    where = f"{lesion['side']} {lesion['organ']}".strip()
    text = f"{plane.capitalize()} slice {number} with the outline of {lesion['label']} {lesion['id']} of the {where}"
    if plane != "axial":
        return f"{text}; a dotted line marks the axial slice in which it was measured."
    sizes = f"long axis {millimetres(lesion['long_axis_mm'])}, short axis {millimetres(lesion['short_axis_mm'])}"
    return f"{text}; {sizes}, both drawn in."


_METRICS = {
    "iou": "IoU (Jaccard)",
    "tk_dice": "Dice, kidney with tumour",
    "tu_dice": "Dice, tumour",
    "voe": "Volumetric overlap error",
    "rvd": "Relative volume difference",
    "assd": "Mean surface distance (mm)",
    "rmsd": "RMS surface distance (mm)",
    "msd": "Maximum surface distance (mm)",
}
_WORDS = {
    "gt": "truth",
    "pred": "prediction",
    "ref": "reference",
    "n": "n",
    "dice": "Dice",
    "iou": "IoU",
    "nsd": "NSD",
    "hd": "HD",
    "hd95": "HD95",
    "hd100": "HD100",
    "asd": "ASD",
    "assd": "ASSD",
    "rmsd": "RMSD",
    "mcc": "MCC",
    "f1": "F1",
    "medpy": "MedPy",
}
_UNITS = {"mm": "mm", "mm2": "mm²", "ml": "mL", "voxels": "voxels", "percent": "%"}
_SMALL_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def summary(measurements: Mapping[str, Any]) -> str:
    """One sentence: ``Two kidneys, 184 mL right and 171 mL left; one tumour in the left kidney, 34 mm.``"""
    parts = [*_organ_phrases(measurements["organs"]), *_lesion_phrases(measurements["lesions"])]
    if not measurements["organs"] and not measurements["lesions"]:
        return "Nothing was found in this scan."
    if not measurements["lesions"]:
        parts.append("no lesion was found")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def counted(count: int, noun: str) -> str:
    """``"one tumour"``, ``"3 cysts"`` in words up to ten."""
    number = _SMALL_NUMBERS[count] if count < len(_SMALL_NUMBERS) else str(count)
    return f"{number} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The plural of the nouns that occur here."""
    if noun.endswith(("s", "x")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"


def listed(items: Sequence[str]) -> str:
    """``"a, b and c"``."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def number(value: Any, digits: int = 3) -> str:
    """A number at a fixed number of decimals, a dash for what is not there."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return f"{value:.{digits}f}".replace("-", "−") if isinstance(value, float) else str(value)


def metric_name(key: str) -> str:
    """A metric's key as a heading."""
    if key.lower() in _METRICS:
        return _METRICS[key.lower()]
    words = key.split("_")
    unit = _UNITS.get(words[-1]) if len(words) > 1 else None
    shown = [_WORDS.get(word, re.sub(r"^(\d+)mm$", r"\1 mm", word)) for word in (words[:-1] if unit else words)]
    text = " ".join(shown)
    return f"{text[:1].upper()}{text[1:]}" + (f" ({unit})" if unit else "")


def region_name(key: str) -> str:
    """A region's key as a heading."""
    text = key.replace("_", " ")
    return f"{text[:1].upper()}{text[1:]}"


def score(key: str, value: Any) -> str:
    """A metric's value: millimetres and millilitres to 1 decimal, counts and large numbers whole, shares to 3."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return DASH
    large = abs(value) >= 100 or (abs(value) > 1 and float(value).is_integer())
    measured = key.rsplit("_", 1)[-1] in _UNITS or key in ("assd", "rmsd", "msd")
    return number(float(value), 0 if large else 1 if measured else 3)


def facts(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as lines of name and text; long lists and texts are cut short, empty values left out."""
    lines: list[tuple[str, str]] = []
    for key, value in table.items():
        name = f"{prefix} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            lines += facts(value, name)
        elif value is None or value == "" or (isinstance(value, list | tuple) and not value):
            continue
        elif isinstance(value, list | tuple):
            lines.append((name, shortened(joined(value))))
        else:
            lines.append((name, shortened(f"{value:.4g}" if isinstance(value, float) else number(value))))
    return [(name[:1].upper() + name[1:], text) for name, text in lines]


def _organ_phrases(organs: Sequence[Mapping[str, Any]]) -> list[str]:
    phrases = []
    for name in dict.fromkeys(organ["name"] for organ in organs):
        mine = [organ for organ in organs if organ["name"] == name]
        sides = [f"{_volume(organ)} {organ['side']}".strip() for organ in mine]
        if len(mine) > 1:
            phrases.append(f"{counted(len(mine), name)}, {listed(sides)}")
        elif mine[0]["side"]:
            phrases.append(f"one {name}, on the {mine[0]['side']}, {_volume(mine[0])}")
        else:
            phrases.append(f"{name} {_volume(mine[0])}")
    return phrases


def _volume(organ: Mapping[str, Any]) -> str:
    least = "at least " if organ.get("cut_by_field_of_view") else ""
    return f"{least}{organ['volume_ml']:.0f} mL"


def _lesion_phrases(lesions: Sequence[Mapping[str, Any]]) -> list[str]:
    groups: dict[tuple[str, str, str], list[float]] = {}
    for lesion in lesions:
        key = (lesion["label"], lesion.get("side", ""), lesion.get("organ", ""))
        groups.setdefault(key, []).append(lesion["long_axis_mm"])
    phrases = []
    for (label, side, organ), sizes in groups.items():
        noun = label.removeprefix(f"{organ} ") if organ else label
        place = f" in the {side} {organ}".replace("  ", " ") if organ else ""
        size = f"{sizes[0]:.0f} mm" if len(sizes) == 1 else f"the largest {max(sizes):.0f} mm"
        phrases.append(f"{counted(len(sizes), noun)}{place}, {size}")
    return phrases
