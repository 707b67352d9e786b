"""The fingerprint: facts of a data set that decide its plan.

Comes in: cases with label maps and their scheme. Goes out: each case's shape, spacing, labelled HU and volumes, in SPL
order, and the HU of all labelled voxels together; JSON both ways. Decides nothing; knows no network.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.errors import DatasetError, InputError
from hilum.labels import LabelScheme, count_labels
from hilum.prepare.workers import over_cases
from hilum.progress import SILENT, Progress
from hilum.scans import read_labels, read_scan
from hilum.volume import Volume, require_same_grid

if TYPE_CHECKING:
    from hilum.datasets import CaseRef

FORMAT = 1
SAMPLES = 10_000  # voxels drawn a case: the percentiles' error is then below a HU

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intensities:
    """HU of labelled voxels: the 0.5, 50 and 99.5 percentile, mean, standard deviation, and how many were looked at."""

    low: float
    median: float
    high: float
    mean: float
    std: float
    samples: int


@dataclass(frozen=True)
class CaseFacts:
    """One case, axes in SPL order.

    Attributes:
        name: the case's.
        shape: voxels (D, H, W).
        spacing_mm: (D, H, W).
        hu: of a sample of its labelled voxels; None if it has none.
        voxels: for each label value of the scheme, how many voxels carry it.
        volumes_ml: the same in millilitres.
    """

    name: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    hu: Intensities | None
    voxels: dict[int, int]
    volumes_ml: dict[int, float]


@dataclass(frozen=True)
class Fingerprint:
    """A data set.

    Attributes:
        cases: in the order given.
        hu: of the labelled voxels of all cases, each sample weighing the same.
        absent: label values of the scheme that occur in no case.
    """

    cases: tuple[CaseFacts, ...]
    hu: Intensities
    absent: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, with the format's number."""
        cases = [
            {**asdict(case), "shape": list(case.shape), "spacing_mm": list(case.spacing_mm)} for case in self.cases
        ]
        for case in cases:
            for key in ("voxels", "volumes_ml"):
                case[key] = {str(value): number for value, number in case[key].items()}
        return {"format": FORMAT, "cases": cases, "hu": asdict(self.hu), "absent": list(self.absent)}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Fingerprint:
        """The fingerprint that ``to_json`` wrote.

        Raises:
            InputError: another format, or keys missing.
        """
        if table.get("format") != FORMAT:
            raise InputError(f"a fingerprint of format {table.get('format')!r}", wanted=f"format {FORMAT}")
        try:
            cases = tuple(_facts(case) for case in table["cases"])
            return cls(cases, Intensities(**table["hu"]), tuple(table["absent"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a fingerprint that cannot be read ({error})", fix="take it again") from None


def fingerprint(
    cases: Sequence[CaseRef], scheme: LabelScheme, workers: int = 0, progress: Progress = SILENT
) -> Fingerprint:
    """Read every case once and note what decides the plan.

    A case without any label, and a label that occurs in no case, are warned of and counted.

    Args:
        cases: with label maps.
        scheme: what the label maps' integers mean.
        workers: cases read at once; 0 means one for each core, at most 8.
        progress: counts cases.

    Raises:
        DatasetError: naming every case that cannot be read, or whose label map lies elsewhere or holds other labels;
            or no case has any labelled voxel.
    """

    def work(case: CaseRef) -> tuple[CaseFacts, np.ndarray]:
        return _look(case, scheme)

    looked = over_cases(work, cases, workers, progress, "Fingerprint")
    facts = tuple(fact for fact, _ in looked)
    sample = np.concatenate([hu for _, hu in looked])
    if not len(sample):
        raise DatasetError(
            f"none of the {len(cases)} label maps has a labelled voxel",
            wanted=f"labels {list(scheme.values)}",
            fix="check that the label maps, not the images, are given",
        )
    for fact in facts:
        if fact.hu is None:
            log.warning("%s: the label map is empty; the case counts as one without findings", fact.name)
    absent = tuple(value for value in scheme.values if not any(fact.voxels[value] for fact in facts))
    if absent:
        names = ", ".join(f"{value} ({scheme.label(value).name})" for value in absent)
        log.warning("no case holds label %s: it cannot be learnt from these data", names)
    return Fingerprint(facts, _intensities(sample), absent)


def read_pair(case: CaseRef, scheme: LabelScheme) -> tuple[Volume, Volume]:
    """A case's scan and label map, on one grid.

    Raises:
        InputError: one of them cannot be read, or they do not lie on one grid.
    """
    assert case.labels is not None, case.name
    scan, labels = read_scan(case.image), read_labels(case.labels, scheme)
    require_same_grid(scan, labels)
    return scan, labels


def generator_for(name: str) -> np.random.Generator:
    """Random numbers that depend on a name alone, on every machine (``hash()`` differs from run to run)."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def _look(case: CaseRef, scheme: LabelScheme) -> tuple[CaseFacts, np.ndarray]:
    scan, labels = read_pair(case, scheme)
    inside = labels.grid.oriented("SPL")
    counts = count_labels(labels.oriented().array)
    # the sample is drawn in SPL order, so that the same case in another file order gives the same HU
    scan_DHW, labels_DHW = scan.oriented().array, labels.oriented().array
    places = np.flatnonzero(labels_DHW)
    if len(places) > SAMPLES:
        places = np.sort(generator_for(case.name).choice(places, SAMPLES, replace=False))
    hu = scan_DHW[np.unravel_index(places, labels_DHW.shape)].astype(np.float32)
    return CaseFacts(
        name=case.name,
        shape=inside.shape,
        spacing_mm=inside.spacing_mm,
        hu=_intensities(hu) if len(hu) else None,
        voxels={value: int(counts[value]) for value in scheme.values},
        volumes_ml={value: float(counts[value] * labels.voxel_ml) for value in scheme.values},
    ), hu


def _intensities(hu: np.ndarray) -> Intensities:
    low, median, high = (float(p) for p in np.percentile(hu, (0.5, 50, 99.5)))
    return Intensities(low, median, high, float(hu.mean(dtype=float)), float(hu.std(dtype=float)), len(hu))


def _facts(table: Mapping[str, Any]) -> CaseFacts:
    return CaseFacts(
        name=table["name"],
        shape=tuple(table["shape"]),
        spacing_mm=tuple(table["spacing_mm"]),
        hu=Intensities(**table["hu"]) if table["hu"] else None,
        voxels={int(value): number for value, number in table["voxels"].items()},
        volumes_ml={int(value): number for value, number in table["volumes_ml"].items()},
    )
