"""The lines of a case's page: organs, lesions, scores, follow-up, as text.

Comes in: parts of ``measurements.json``, also of older ones that lack newer keys. Goes out: dicts of strings for the
template. It computes no number but sums of what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hilum.labels import LabelScheme
from hilum.pages import strings, units
from hilum.results.summary import title

Line = dict[str, Any]
T = strings.TEXT
_LIMITS_MM = (40.0, 70.0, 100.0)  # of T stage and R.E.N.A.L.


def organ_line(entry: Mapping[str, Any], scheme: LabelScheme) -> Line:
    """One organ's row."""
    name = title(entry)
    labels = [x for x in scheme.labels if x.organ == entry["name"] and x.kind == "organ"]
    label = next((x for x in labels if x.side == entry["side"]), labels[0])
    least = T["at_least"] if entry["cut_by_field_of_view"] else ""
    lesions = entry["lesions_ml"]
    axes = [entry.get(key) for key in ("length_mm", "width_mm", "thickness_mm")]
    share = f" ({lesions / entry['volume_ml']:.0%})".replace("%", " %") if lesions and entry["volume_ml"] else ""
    return {
        "title": f"{name[:1].upper()}{name[1:]}",
        "colour": label.colour,
        "volume": f"{least}{units.millilitres(entry['volume_ml'])}",
        "parenchyma": units.millilitres(entry["parenchyma_ml"]),
        "lesions": f"{units.millilitres(lesions)}{share}" if lesions else units.DASH,
        "axes": units.DASH if None in axes else f"{' × '.join(f'{x:.0f}' for x in axes if x is not None)} mm",
        "hu": density(entry),
    }


def lesion_line(entry: Mapping[str, Any], scheme: LabelScheme, unsure: Mapping[str, Any] | None) -> Line:
    """One lesion's row."""
    least = T["at_least"] if entry["cut_by_field_of_view"] else ""
    doubt: Mapping[str, Any] = next((x for x in (unsure or {}).get("lesions", []) if x["id"] == entry["id"]), {})
    interval = ""
    if "low_ml" in doubt:
        interval = units.millilitre_span(doubt["low_ml"], doubt["high_ml"])
    renal = entry.get("renal") or {}
    return {
        "id": entry["id"],
        "label": entry["label"],
        "colour": scheme.label(entry["value"]).colour,
        "where": strings.place(entry),
        "axes": f"{_bare(entry['long_axis_mm'])} × {_bare(entry['short_axis_mm'])} mm",
        "volume": f"{least}{units.millilitres(entry['volume_ml'])}",
        "interval": interval or units.DASH,
        "confidence": f"{doubt['confidence']:.2f}" if "confidence" in doubt else units.DASH,
        "exophytic": _percent(entry.get("exophytic_percent")),
        "t_size": (entry.get("t_stage_by_size") or {}).get("value") or units.DASH,
        "nephrometry": _score_text((renal.get("nephrometry") or {}).get("total")),
        "hu": density(entry),
        "slice": entry["slice_index"] + 1,
    }


def lesion_facts(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands beside a lesion's pictures."""
    renal = entry.get("renal") or {}
    scores = renal.get("nephrometry") or {}
    lines: list[tuple[str, str | None]] = [
        (T["place"], strings.place(entry)),
        (T["diameters"], T["axial"].format(f"{_bare(entry['long_axis_mm'])} × {_bare(entry['short_axis_mm'])}")),
        (T["any_direction"], units.millimetres(entry["any_direction_mm"])),
        (T["volume"], units.millilitres(entry["volume_ml"])),
        (T["composition"], _composition(entry)),
        (T["density"], None if entry.get("hu_mean") is None else density(entry)),
        (T["enhancement"], _enhancement(entry.get("enhancement"))),
        (T["necrosis"], _necrosis(entry.get("necrosis")) if entry["kind"] == "tumour" else None),
        (T["exophytic"], None if entry.get("exophytic_percent") is None else _percent(entry["exophytic_percent"])),
        (T["depth"], _depth(entry.get("distance_to_surface_mm"))),
        (T["contact"], _unit(entry.get("contact_area_cm2"), "cm²")),
        (T["satellites"], _satellites(entry)),
        (T["t_stage"], _score_text(entry.get("t_stage_by_size"), "")),
        (T["nephrometry"], _nephrometry(scores)),
        (T["padua"], _score_text((renal.get("padua") or {}).get("total"), "")),
        (T["c_index"], _decimal(renal.get("c_index"))),
        (T["resection"], _resection(renal.get("resection"))),
    ]
    return _said_once([(name, text) for name, text in lines if text])


def _depth(value: float | None) -> str | None:
    """Of what does not reach the surface."""
    return None if not value else units.millimetres(value)


def _satellites(entry: Mapping[str, Any]) -> str | None:
    """Of tumours only: cysts side by side are no spread."""
    found = [str(n) for n in entry.get("satellite_ids") or []]
    if not found or entry["kind"] != "tumour":
        return None
    return T["lesions_word" if found[1:] else "lesion_number"].format(strings.listed(found))


def _said_once(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Scores that lack for the same reason share a line, where the first of them stood."""
    marker = T["not_computable"].format("")
    names: dict[str, list[str]] = {}
    for name, text in lines:
        names.setdefault(text if text.startswith(marker) else f"{name}\n{text}", []).append(name)
    return [(T["scores"] if group[1:] else group[0], key.split("\n", 1)[-1]) for key, group in names.items()]


def followup_lines(follow: Mapping[str, Any] | None, lesions: Sequence[Mapping[str, Any]]) -> Line | None:
    """The table of growth, and RECIST's sums; None without an earlier date."""
    if not follow:
        return None
    now = {x["id"]: x for x in lesions}
    rows = []
    for entry in follow["matched"]:
        lesion = now[entry["id"]]
        rows.append(
            {
                "name": T["was"].format(lesion["label"].capitalize(), entry["id"], entry["previous_id"]),
                "status": _status(entry),
                "before": f"{_bare(entry['long_axis_before_mm'])} mm, {units.millilitres(entry['volume_before_ml'])}",
                "now": f"{_bare(lesion['long_axis_mm'])} mm, {units.millilitres(lesion['volume_ml'])}",
                "axis": f"{units.percent(entry['long_axis_change_percent'])}",
                "volume": f"{units.percent(entry['volume_change_percent'])}",
                "error": f"±{entry['long_axis_grid_error_mm']:.1f} mm, "
                f"±{units.millilitres(entry['volume_grid_error_ml'])}",
                "doubling": _days(entry["doubling_days"]),
            }
        )
    for number in follow["new_ids"]:
        lesion = now[number]
        size = f"{_bare(lesion['long_axis_mm'])} mm, {units.millilitres(lesion['volume_ml'])}"
        rows.append(_bare_row(f"{lesion['label'].capitalize()} {number}", T["new"], units.DASH, size))
    for lesion in follow["vanished"]:
        size = f"{_bare(lesion['long_axis_mm'])} mm, {units.millilitres(lesion['volume_ml'])}"
        rows.append(
            _bare_row(T["gone"].format(lesion["label"].capitalize(), lesion["id"]), T["vanished"], size, units.DASH)
        )
    recist = follow["recist"]
    return {
        "rows": rows,
        "recist": recist,
        "lead": _followup_lead(follow),
        "sums": _sums(recist),
        "fit": _fit(follow["registration"]),
    }


def split_line(table: Mapping[str, Any]) -> str:
    """The split function estimate in a sentence, or why there is none."""
    split = table.get("split_function")
    if not split:
        return ""
    if split["not_computable"]:
        return T["split_not"].format(split["not_computable"])
    right, left = split["right_percent"], split["left_percent"]
    return T["split"].format(right, left, split["basis"].split(",")[0])


def density(entry: Mapping[str, Any]) -> str:
    """``120 ± 14 HU``."""
    if entry.get("hu_mean") is None:
        return units.DASH
    return f"{strings.number(float(entry['hu_mean']), 0)} ± {entry['hu_sd']:.0f} HU"


def _bare_row(name: str, status: str, before: str, now: str) -> Line:
    rest = dict.fromkeys(("axis", "volume", "error", "doubling"), units.DASH)
    return {"name": name, "status": status, "before": before, "now": now, **rest}


def _status(entry: Mapping[str, Any]) -> str:
    if not entry["volume_beyond_grid_error"]:
        return T["same"]
    return T["grew"] if entry["volume_change_ml"] > 0 else T["shrank"]


def _followup_lead(follow: Mapping[str, Any]) -> str:
    when = T["days_after"].format(follow["days"]) if follow.get("days") is not None else T["compared"]
    name = f"“{follow['previous']}”" if follow.get("previous") else T["previous"]
    parts = [T["found_again"].format(_lesions(follow["matched"]))]
    parts += [T["are_new"].format(_lesions(follow["new_ids"]))] if follow["new_ids"] else []
    parts += [T["are_gone"].format(_lesions(follow["vanished"]))] if follow["vanished"] else []
    return f"{when}{name}: {', '.join(parts)}."


def _sums(recist: Mapping[str, Any]) -> str:
    """The sums of diameters, where the reason of the category does not tell them and there are targets."""
    if not recist["target_ids"] or "sum of diameters" in recist["reason"]:
        return ""
    return T["target"].format(recist["sum_before_mm"], recist["sum_now_mm"])


def _fit(registration: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for entry in registration:
        if entry["dice"] is not None:
            name = f"{entry['side']} {entry['organ']}".strip()
            parts.append(T["moved"].format(name, entry["moved_mm"], entry["turned_degrees"], entry["dice"]))
    return T["laid"].format("; ".join(parts)) if parts else ""


def _lesions(found: Sequence[Any]) -> str:
    return strings.counted(len(found), T["lesion_word"])


def _days(value: float | None) -> str:
    if value is None:
        return units.DASH
    return T["days"].format(value) if value < 730 else T["years"].format(value / 365.25)


def _bare(mm: float) -> str:
    """``34``; with a decimal below 10 and where a whole number would hide on which side of a stage's limit it lies."""
    near = any(0 < abs(mm - limit) < 0.5 for limit in _LIMITS_MM)
    return f"{mm:.1f}" if mm < 9.95 or near else f"{mm:.0f}"


def _percent(value: float | None) -> str:
    return units.DASH if value is None else f"{value:.0f} %"


def _unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:.1f} {unit}"


def _score_text(score: Mapping[str, Any] | None, otherwise: str = units.DASH) -> str:
    """A score's own text, its range, or why there is none."""
    if not score:
        return otherwise
    if score.get("text"):
        return str(score["text"])
    if score.get("value") is not None:
        return str(score["value"])
    if score.get("low") is not None and score.get("high") is not None:
        return T["span"].format(score["low"], score["high"], score["not_computable"])
    return otherwise if otherwise == units.DASH else T["not_computable"].format(score["not_computable"])


def _nephrometry(scores: Mapping[str, Any]) -> str:
    if not scores:
        return ""
    total = scores.get("total") or {}
    if total.get("value") is None and total.get("low") is None:
        return T["not_computable"].format(total.get("not_computable") or "").strip()
    points = [f"{key.upper()}{scores[key]['points']}" for key in "renl" if (scores.get(key) or {}).get("points")]
    complexity = T["complexity"].format(total["complexity"]) if total.get("complexity") else ""
    low, high = total.get("low"), total.get("high")
    told = total.get("value") is None  # the range stands in the score's own text
    span = "" if told or low is None or low == high else T["sinus_span"].format(low, high)
    return f"{_score_text(total, '')} ({' '.join(points)}{complexity}{span})"


def _decimal(score: Mapping[str, Any] | None) -> str:
    if not score:
        return ""
    return f"{score['value']:.1f}" if score.get("value") is not None else _score_text(score, "")


def _resection(score: Mapping[str, Any] | None) -> str:
    if not score:
        return ""
    if score.get("value") is None:
        return _score_text(score, "")
    left = score["remaining_parenchyma_percent"]
    if left is None:
        return T["margin_alone"].format(units.millilitres(score["value"]), score["margin_mm"])
    return T["margin"].format(units.millilitres(score["value"]), score["margin_mm"], left)


def _composition(entry: Mapping[str, Any]) -> str:
    found = entry.get("composition") or {}
    return T["by"].format(found["value"], found["basis"]) if found.get("value") else ""


def _necrosis(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("percent") is None:
        return ""
    return T["of_volume"].format(found["percent"], found["basis"])


def _enhancement(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    return f"{strings.number(float(found['change_hu']), 0)} HU ({found['judgement']})"
