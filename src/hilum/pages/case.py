"""The page of one case: a sentence, the gate, measurements, every lesion, a view that turns, pictures, its making.

Comes in: measurements and the Volumes to draw. Goes out: ``report.html`` and, beside it, ``thumbnail.jpg`` for the page
of many cases. It computes no number of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum.files import written
from hilum.labels import LabelScheme, count_labels
from hilum.pages import strings, tables
from hilum.pages.case_lines import followup_lines, lesion_facts, lesion_line, organ_line, split_line
from hilum.pages.figures import case_rows
from hilum.pages.lesion_slices import lesion_slices
from hilum.pages.surfaces import blank, scene, thumbnail
from hilum.pages.writing import AGREEMENT, write_page
from hilum.results.lesion_map import lesion_map
from hilum.volume import Volume, require_same_grid

MOST_LESION_PICTURES = 12


def case_report(
    out_html: Path,
    scan: Volume | None,
    labels: Volume,
    measurements: Mapping[str, Any],
    scheme: LabelScheme,
    *,
    model_card: Mapping[str, Any] | None = None,
    truth: Volume | None = None,
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    run: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Path:
    """Write the page of one case.

    Args:
        out_html: where to write; ``thumbnail.jpg`` is written beside it.
        scan: HU, drawn under the labels; None draws the labels alone.
        labels: the segmentation that ``measurements`` come from.
        measurements: from ``measure_all`` or ``measure``.
        scheme: what the labels mean.
        model_card: facts about the model (nested tables are listed line by line).
        truth: adds the columns truth and overlay.
        scores: region -> metric -> value of this case.
        run: facts about the run (versions, options, seconds, memory).
        name: heading; by default the name of the folder that the page is written to.

    Returns:
        ``out_html``.

    Raises:
        GeometryError: scan, labels and truth do not lie on one grid.
        OutputError: the page cannot be written.
    """
    inside, image = labels.oriented(), None if scan is None else scan.oriented()
    if image is not None:
        require_same_grid(inside, image)
    lesions = measurements["lesions"]
    first = sorted(lesions, key=lambda x: (x["kind"] != "tumour", -x["long_axis_mm"]))
    drawn = sorted(first[:MOST_LESION_PICTURES], key=lambda x: (x["kind"] != "tumour", x["id"]))
    numbered = lesion_map(labels, scheme, lesions)
    view = scene(numbered, scheme, lesions)
    maps = [numbered.labels_DHW] if numbered is not None else []
    maps += [truth.array] if truth is not None else []
    gate = measurements.get("quality")
    why = list((gate or {}).get("why", []))
    told = [*measurements["warnings"], *_card_warnings(model_card)]
    rows = case_rows(scan, labels, scheme, truth)
    context = {
        "t": strings.TEXT,
        "kind": strings.TEXT["kind"],
        "heading": name or Path(out_html).resolve().parent.name,
        "lead": strings.summary(measurements),
        "header_facts": _header_facts(scan, labels, model_card),
        "gate": gate,
        "why": why,
        "warnings": [],
        "told": [text for text in told if not any(_same(text, other) for other in why)],
        **_tables(measurements, scheme, scan is not None),
        "cards": [_card(x, image, inside, scheme) for x in drawn],
        "lesions_left": len(lesions) - len(drawn),
        "scene": view,
        "scene_parts": [] if view is None else [(part.colour, part.name) for part in view.parts],
        "followup": followup_lines(measurements.get("followup"), lesions),
        "rows": rows,
        "titles": [strings.slice_title(row.plane, row.index + 1) for row in rows],
        "legend": _legend(scheme, maps),
        "agreement": AGREEMENT if truth is not None else (),
        "score_table": tables.value_table(scores) if scores else None,
        **_making(scan if scan is not None else labels, measurements, model_card, run),
    }
    page = write_page(out_html, "case.html", context)
    with written(Path(out_html).with_name("thumbnail.jpg")) as part:
        part.write_bytes(thumbnail(view.still if view is not None else blank()))
    return page


def _tables(measurements: Mapping[str, Any], scheme: LabelScheme, has_hu: bool) -> dict[str, Any]:
    """The rows of organs and lesions, and which of their columns there are."""
    lesions, unsure = measurements["lesions"], measurements.get("uncertainty")
    return {
        "organs": [organ_line(x, scheme) for x in measurements["organs"]],
        "split": split_line(measurements),
        "lesions": [lesion_line(x, scheme, unsure) for x in lesions],
        "has_hu": has_hu,
        "has_renal": any(x.get("renal") for x in lesions),
        "has_interval": any("low_ml" in x for x in (unsure or {}).get("lesions", [])),
        "has_confidence": bool((unsure or {}).get("lesions")),
        "unsure_how": strings.unsure_how(unsure),
    }


def _making(
    volume: Volume, measurements: Mapping[str, Any], card: Mapping[str, Any] | None, run: Mapping[str, Any] | None
) -> dict[str, Any]:
    """How it all came about: method, scores, scan, model, run."""
    return {
        "method": strings.method(measurements["smallest_lesion_voxels"]),
        "definitions": measurements.get("definitions") or {},
        "scan_facts": _scan_facts(volume),
        "model_facts": strings.facts(card or {}),
        "run_facts": strings.facts(run or {}),
    }


def _card(lesion: Mapping[str, Any], scan: Volume | None, labels: Volume, scheme: LabelScheme) -> dict[str, Any]:
    """One lesion's heading, pictures and facts."""
    return {
        "id": lesion["id"],
        "title": strings.lesion_title(lesion),
        "colour": scheme.label(lesion["value"]).colour,
        "pictures": lesion_slices(scan, labels, scheme, lesion),
        "facts": lesion_facts(lesion),
    }


def _same(text: str, other: str) -> bool:
    """Whether a warning and a check speak of the same organ at the edge of the scan."""
    return "edge of the scan" in text and "edge of the scan" in other


def _header_facts(scan: Volume | None, labels: Volume, card: Mapping[str, Any] | None) -> list[str]:
    volume = scan if scan is not None else labels
    lines = [Path(volume.source).name, re.sub(r"(?<=\d)x(?=\d)", "×", volume.grid.describe())]
    model = (card or {}).get("name") or (card or {}).get("model")
    return [line for line in (*lines, strings.TEXT["by_model"].format(model) if model else "") if line]


def _card_warnings(card: Mapping[str, Any] | None) -> list[str]:
    """What a model's makers say against it belongs at the top of every page that it fills."""
    said = (card or {}).get("warning")
    return [strings.TEXT["model_says"].format(said)] if said else []


def _scan_facts(volume: Volume) -> list[tuple[str, str]]:
    """Geometry and what the file told; who the patient is stays out of a page that gets passed on."""
    header = {key: value for key, value in volume.header.items() if not key.lower().startswith("patient")}
    grid = {
        "file": Path(volume.source).name,
        "shape": volume.shape,
        "spacing mm": volume.spacing_mm,
        "axes": volume.codes,
    }
    return strings.facts({**grid, **header})


def _legend(scheme: LabelScheme, maps: Sequence[np.ndarray]) -> list[tuple[str, str]]:
    counts = [count_labels(array) for array in maps]
    return [(x.colour, x.name) for x in scheme.labels if any(each[x.value] for each in counts)]
