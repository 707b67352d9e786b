"""Places to look at: lesions that were missed, invented or outlined differently, as a table and as pictures.

Comes in: ``scores.json`` as read and the Volumes to draw. Goes out: what the template shows; every place has an anchor,
so that tables can link to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hilum.errors import HilumError
from hilum.judge.suspects import KINDS, rank_suspects
from hilum.labels import LabelScheme
from hilum.pages import strings
from hilum.pages.figures import spot_picture
from hilum.pages.loading import Pictures

PICTURED = {KINDS["missed"]: 16, KINDS["invented"]: 8, KINDS["found"]: 8}
HEADINGS = {what: strings.TEXT[kind] for kind, what in KINDS.items()}
_LISTED = 60


def place_blocks(
    scores: Mapping[str, Any], pictures: Pictures | None, scheme: LabelScheme | None, everything: bool = False
) -> list[dict[str, Any]]:
    """Blocks of the page, one a kind of place: ``{"title", "note", "lines", "cut"}``, the largest places first.

    Args:
        scores: ``scores.json``.
        pictures: gives (scan or None, truth, prediction) of a case; None leaves pictures out.
        scheme: what the labels mean; None leaves pictures out.
        everything: also what is outlined differently, which is asked for when labels are suspected.
    """
    ranked = rank_suspects(scores)["cases"]
    kinds = list(HEADINGS) if everything else list(HEADINGS)[:2]
    blocks = []
    loaded: dict[str, Any] = {}
    for what in kinds:
        places = [(row["case"], place) for row in ranked for place in row["places"] if place["what"] == what]
        places.sort(key=lambda found: -float(found[1]["volume_ml"]))
        if not places:
            continue
        lines = []
        for number, (case, place) in enumerate(places[:_LISTED]):
            picture = None
            if pictures is not None and scheme is not None and number < PICTURED[what]:
                picture = _picture(case, place, pictures, scheme, loaded)
            lines.append(_line(case, place, picture))
        count = strings.counted(len(places), strings.TEXT["place_word"])
        cases = strings.counted(len({case for case, _ in places}), strings.TEXT["case_word"])
        note = strings.TEXT["places_in"].format(count, cases)
        blocks.append({"title": HEADINGS[what], "note": note, "lines": lines, "cut": len(places) > _LISTED})
    return blocks


def suspect_lines(suspects: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Cases by disagreement, each with links to its places on the page."""
    anchors = {line["anchor"] for block in blocks for line in block["lines"]}
    lines = []
    for row in suspects["cases"]:
        links = [
            {"anchor": anchor, "text": f"{place['what']}, {place['volume_ml']:.2f} mL"}
            for place in row["places"]
            if (anchor := anchor_of(row["case"], place)) in anchors
        ]
        lines.append(
            {
                "case": row["case"],
                "disagreement": strings.number(row["disagreement"]),
                "disputed": f"{row['disputed_ml']:.2f}",
                "seen": row["seen_in_training"],
                "links": links[:6],
            }
        )
    return lines


def anchor_of(case: str, place: Mapping[str, Any]) -> str:
    """A name that no two places share, of letters that a URL takes."""
    spot = "_".join(f"{x:g}" for x in place["place_mm"])
    kind = next(name for name, what in KINDS.items() if what == place["what"])
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{kind}-{case}-{spot}")


def _line(case: str, place: Mapping[str, Any], picture: Any) -> dict[str, Any]:
    x, y, z = place["place_mm"]
    return {
        "anchor": anchor_of(case, place),
        "case": case,
        "regions": " / ".join(strings.region_name(region).lower() for region in place["regions"]),
        "place": f"{x:.0f}, {y:.0f}, {z:.0f}".replace("-", "−"),
        "diameter": f"{place['diameter_mm']:.0f}",
        "volume": f"{place['volume_ml']:.2f}",
        "picture": picture,
    }


def _picture(
    case: str, place: Mapping[str, Any], pictures: Pictures, scheme: LabelScheme, loaded: dict[str, Any]
) -> Any:
    """The picture, or None where a case's files are gone: the page says the place all the same."""
    if case not in loaded:
        loaded.clear()  # one case in memory at a time
        try:
            loaded[case] = pictures(case)
        except (HilumError, KeyError, OSError):
            loaded[case] = None
    if loaded[case] is None:
        return None
    scan, truth, prediction = loaded[case]
    where = place["place_mm"], float(place["diameter_mm"])
    try:
        return spot_picture(scan, truth, prediction, scheme, *where, strings.TEXT["spot_title"])
    except HilumError:
        return None
