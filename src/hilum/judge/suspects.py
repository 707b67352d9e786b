"""Which labels to look at again: cases ordered by disagreement, with the places that look mislabelled.

Comes in: what ``scores.json`` holds, of predictions by models that have not seen the cases (out of fold). Goes out:
``OUT/suspects.json`` and ``OUT/suspects.csv``. A disagreement says that label or model is wrong, not which of the two:
the list orders a person's second look and changes no label.

Places come from the lists of lesions that every evaluation of files keeps.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilum.files import write_json, write_text

OVERLAPS = ("dice", "Dice", "dice_per_case")
POOR_DICE = 0.5  # a lesion that both sides have counts as disputed below this
CAVEAT = (
    "A disagreement says that label or model is wrong, not which. It is worth a look only if the models had not seen "
    "these cases in training."
)
# list in scores.json -> what a reader should check
KINDS = {
    "missed": "labelled, not predicted",
    "invented": "predicted, not labelled",
    "found": "outlined differently",
}


def rank_suspects(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Cases by disagreement, the largest first, each with its disputed places, the largest first.

    Args:
        scores: what ``evaluate`` returned or wrote.

    Returns:
        ``{"format", "caveat", "cases": [{"case", "disagreement", "disputed_ml", "seen_in_training", "places"}]}``;
        disagreement is 1 - Dice, averaged over the regions in which it is defined, None where it is in none. A place
        has its regions, what to check, place_mm (world, RAS+), volume_ml (of a lesion outlined differently: the share
        of it that Dice lacks) and diameter_mm.
    """
    seen = set()
    for finding in (scores.get("audit") or {}).get("findings", ()):
        if finding["kind"] == "shared_patients":
            seen |= set(finding["cases"])
    rows = []
    for name, regions in scores["cases"].items():
        places = _places(scores.get("lesions", {}).get(name, {}))
        rows.append(
            {
                "case": name,
                "disagreement": _disagreement(regions),
                "disputed_ml": round(sum(place["volume_ml"] for place in places), 4),
                "seen_in_training": name in seen,
                "places": places,
            }
        )
    rows.sort(key=lambda row: (-(row["disagreement"] or 0.0), -row["disputed_ml"], row["case"]))
    return {"format": 1, "caveat": CAVEAT, "cases": rows}


def write_suspects(scores: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """``rank_suspects``, written to ``OUT/suspects.json`` and, a row a place, ``OUT/suspects.csv``."""
    ranked = rank_suspects(scores)
    write_json(Path(out) / "suspects.json", ranked)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rank", "case", "disagreement", "what", "regions", "x_mm", "y_mm", "z_mm", "volume_ml"))
    for rank, row in enumerate(ranked["cases"], 1):
        head = (rank, row["case"], "" if row["disagreement"] is None else row["disagreement"])
        for place in row["places"] or [None]:
            rest = (place["what"], " ".join(place["regions"]), *place["place_mm"], place["volume_ml"]) if place else ()
            writer.writerow((*head, *(rest or ("",) * 6)))
    write_text(Path(out) / "suspects.csv", text.getvalue())
    return ranked


def suspects_text(ranked: Mapping[str, Any], most: int = 10) -> str:
    """The first cases as plain text, two places each."""
    lines = []
    for rank, row in enumerate(ranked["cases"][:most], 1):
        mark = "no Dice" if row["disagreement"] is None else f"{row['disagreement']:.3f}"
        seen = ", seen in training" if row["seen_in_training"] else ""
        lines.append(f"{rank:3} {row['case']}  disagreement {mark}{seen}")
        for place in row["places"][:2]:
            x, y, z = place["place_mm"]
            where = f"{x:.0f}, {y:.0f}, {z:.0f} mm"
            lines.append(f"      {'/'.join(place['regions'])} {place['what']}: {place['volume_ml']:.2f} mL at {where}")
    return "\n".join([*lines, ranked["caveat"]])


def _disagreement(regions: Mapping[str, Mapping[str, float | None]]) -> float | None:
    values = [metrics[name] for metrics in regions.values() for name in OVERLAPS if metrics.get(name) is not None]
    marks = [float(value) for value in values if value is not None]
    return round(1 - sum(marks) / len(marks), 6) if marks else None


def _places(lesions: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Disputed lesions; one that several nested regions list is one place with several regions."""
    places: dict[tuple[Any, ...], dict[str, Any]] = {}
    for region, lists in lesions.items():
        for kind, what in KINDS.items():
            for lesion in lists.get(kind, ()):
                share = 1 - lesion.get("dice", 0.0) if kind == "found" else 1.0
                if kind == "found" and share <= 1 - POOR_DICE:
                    continue
                key = (kind, *lesion["place_mm"], lesion["volume_ml"])
                place = {"regions": [], "what": what, "place_mm": lesion["place_mm"]}
                place |= {"volume_ml": round(share * lesion["volume_ml"], 4), "diameter_mm": lesion["diameter_mm"]}
                places.setdefault(key, place)["regions"].append(region)
    return sorted(places.values(), key=lambda place: -float(place["volume_ml"]))
