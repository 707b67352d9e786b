"""All that is known of one case in one table: measurements, uncertainty, follow-up and the quality gate.

Comes in: a label map, its scheme, and whatever else there is (scan, probabilities, folds, an earlier date). Goes out:
the table that ``measurements.json`` holds. It reads and writes no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hilum.labels import LabelScheme
from hilum.results.followup import follow_up
from hilum.results.measure import measure
from hilum.results.quality import quality
from hilum.results.renal import MARGIN_MM
from hilum.results.uncertainty import uncertainty
from hilum.volume import Volume


@dataclass(frozen=True)
class Earlier:
    """An earlier date of the same patient.

    Attributes:
        labels: its label map.
        table: its measurements.
        days: from then to now, None if nobody told.
        name: what to call it.
    """

    labels: Volume
    table: Mapping[str, Any]
    days: float | None = None
    name: str = ""


def measure_all(
    labels: Volume,
    scheme: LabelScheme,
    scan: Volume | None = None,
    *,
    second: Volume | None = None,
    probabilities: Mapping[str, Volume] | None = None,
    folds: Sequence[Volume] = (),
    earlier: Earlier | None = None,
    margin_mm: float = MARGIN_MM,
) -> dict[str, Any]:
    """``measure`` with the keys ``uncertainty`` and ``followup`` (null where nothing was given) and ``quality``.

    Args:
        labels, scheme, scan, second: as for ``measure``.
        probabilities, folds: as for ``uncertainty``.
        earlier: an earlier date.
        margin_mm: of healthy tissue around a renal tumour, for the resected volume.

    Raises:
        LabelError: unknown labels, or probabilities that are none.
        GeometryError: scan, probabilities or folds on another grid.
        InputError: the earlier date was measured with another label scheme.
    """
    table = measure(labels, scheme, scan, second, margin_mm=margin_mm)
    unsure = uncertainty(labels, table, scheme, probabilities=probabilities, folds=folds)
    follow = None
    if earlier is not None:
        follow = follow_up(labels, table, earlier.labels, earlier.table, scheme, days=earlier.days)
        follow["previous"] = earlier.name
    gate = quality(labels, table, scheme, scan, unsure=unsure, followup=follow)
    return {**table, "uncertainty": unsure, "followup": follow, "quality": gate}
