"""Which tiles of a scan are to be done: all of them, or those around what a first look finds.

Comes in: a predictor and a prepared scan. Goes out: a ``Search``, and a wider one where labels were cut. See ``region``
for the rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.inference.region import FIRST_LOOK, WORTH, Border, Found
from hilum.inference.source import Prepared, Start, TileSource
from hilum.labels import LabelScheme
from hilum.patches.tiles import tile_starts
from hilum.prepare.preprocess import restream
from hilum.progress import SILENT, Progress
from hilum.volume import Volume

if TYPE_CHECKING:
    from hilum.inference.predict import Predictor

ROUNDS = 3  # of growing boxes, before the whole scan is done


@dataclass
class Count:
    """How many tiles a prediction has looked at, and how many held only air."""

    tiles: int = 0
    air: int = 0


@dataclass(frozen=True)
class Search:
    """Which tiles of a scan are to be done.

    Attributes:
        starts: their corners, ascending.
        found: what the first look found; None where the whole scan is done.
        facts: for the record: ``places`` (connected), ``tiles``, ``tiles_of_the_whole``, ``rounds``, ``whole`` (why, or
            "").
    """

    starts: list[Start]
    found: Found | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def first_search(predictor: Predictor, case: Prepared, count: Count, progress: Progress = SILENT) -> Search:
    """All tiles, or (where the predictor goes region first) those around what a first look finds."""
    source, whole = _whole(predictor, case)
    if not predictor.region:
        return Search(whole)
    patch = predictor.plan.patch
    facts = {"places": 0, "tiles": len(whole), "tiles_of_the_whole": len(whole), "rounds": 0, "whole": ""}
    coarse = tile_starts(source.shape, patch, 0.0)
    if predictor.locator is None and len(coarse) > FIRST_LOOK * len(whole):
        return Search(whole, facts=facts | {"whole": "the scan is small"})
    found = Found(source.shape, patch, predictor.outputs, regions=bool(predictor.writers))
    if predictor.locator is not None:
        missing = _ask_locator(predictor.locator, case, source, found, count, progress)
    else:
        for start, logits_Kdhw in predictor.tiles(source, coarse, count, "Finding organs", progress, first_only=True):
            found.look(start, logits_Kdhw)
        missing = _missing(found, predictor.scheme)
    if missing:
        return Search(whole, facts=facts | {"whole": f"no {' and no '.join(missing)} found at first sight"})
    return _around(predictor, found, whole, facts)


def wider_search(predictor: Predictor, case: Prepared, search: Search, border: Border) -> Search:
    """The next search after labels were cut: boxes that reach further there, or the whole scan in the end."""
    assert search.found is not None
    source, whole = _whole(predictor, case)
    facts = search.facts | {"rounds": search.facts["rounds"] + 1}
    if facts["rounds"] > ROUNDS:
        return Search(whole, facts=facts | {"tiles": len(whole), "whole": "organs reach beyond every box"})
    for place in border.places:
        search.found.mark(place, np.ones((1, 1, 1), bool), offset=source.before)
    return _around(predictor, search.found, whole, facts)


def _whole(predictor: Predictor, case: Prepared) -> tuple[TileSource, list[Start]]:
    source = TileSource(case, predictor.plan.patch, predictor.threads, predictor.plan.context)
    return source, tile_starts(source.shape, predictor.plan.patch, predictor.overlap)


def _around(predictor: Predictor, found: Found, whole: list[Start], facts: dict[str, Any]) -> Search:
    starts = found.tiles(predictor.overlap, wider=facts["rounds"])
    facts = facts | {"places": found.pieces}
    if len(starts) > WORTH * len(whole):
        return Search(whole, facts=facts | {"tiles": len(whole), "whole": "organs fill most of the scan"})
    return Search(starts, found, facts | {"tiles": len(starts)})


def _ask_locator(
    locator: Predictor, case: Prepared, source: TileSource, found: Found, count: Count, progress: Progress
) -> list[str]:
    """Note what the locator finds, at its own spacing; the organs of its scheme that it does not find."""
    own = restream(case, locator.plan)
    seen = Found(own.grid.shape, locator.plan.patch, locator.outputs, regions=bool(locator.writers))
    masks = np.zeros((2, *own.grid.shape), bool)  # where anything was found, and where it was sure
    for planes in locator.planes(own, first_search(locator, own, count), count, progress=progress):
        slab = slice(planes.first, planes.first + planes.logits_KSHW.shape[1])
        masks[:, slab] = seen.look((planes.first, 0, 0), planes.logits_KSHW)
    for mask, sure in zip(masks, (False, True), strict=True):
        turned = Volume.on(own.grid, mask).oriented(case.grid.codes).array  # a locator may list voxels otherwise
        scale = [n / m for n, m in zip(case.grid.shape, turned.shape, strict=True)]
        found.mark((0, 0, 0), turned, scale, source.before, sure=sure)
    return _missing(seen, locator.scheme)


def _missing(found: Found, scheme: LabelScheme) -> list[str]:
    """Organs of the scheme of which no output won anywhere."""
    if found.regions:
        won = {
            value for part, there in zip(scheme.regions, found.outputs, strict=True) if there for value in part.labels
        }
    else:
        won = {part.value for part, there in zip(scheme.labels, found.outputs[1:], strict=True) if there}
    return [organ for organ in scheme.organs if not won & set(scheme.of(organ))]
