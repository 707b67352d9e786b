"""What every scoring protocol shares: what a person may choose, the scores of a case, a protocol's facts.

Comes in: a ``Pair``, which a protocol turns into a ``CaseScore``. Knows no files and no particular challenge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hilum.judge.confidence import Confidence
from hilum.judge.lesions import Neighbours
from hilum.judge.pair import Pair
from hilum.labels import LabelScheme

Values = dict[str, dict[str, float]]
Sums = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ScoreOptions:
    """What a person may choose; official protocols have their own numbers and ignore these.

    Attributes:
        tolerances_mm: of NSD, for the protocols that leave it open.
        lesion_iou: a lesion counts as detected above this intersection over union.
        connectivity: 6, 18 or 26 neighbours make one lesion.
        diameters_mm: borders of the lesion size bins, as diameters of spheres of the same volume.
        threads: for the distances within one case.
    """

    tolerances_mm: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 7.0)
    lesion_iou: float = 0.5
    connectivity: Neighbours = 26
    diameters_mm: tuple[float, ...] = (10.0, 20.0, 40.0)
    threads: int = 1


@dataclass(frozen=True)
class CaseScore:
    """One case, scored.

    Attributes:
        values: region -> metric -> number; NaN or inf where undefined.
        reasons: "region/metric" -> why it is undefined.
        sums: what adds up over cases to the pooled values.
        peaks: what is pooled by taking the largest.
        truth_voxels: region -> voxels of the truth.
        lesions: region -> the lists of missed and invented lesions.
        warnings: sentences about this case.
        label_counts: label, 0 included -> voxels in both, in the truth, in the prediction.
        volumes_ml: region of the scheme -> mL of the truth, of the prediction.
        confidence: region -> lesions and voxels by predicted probability, where there are probabilities.
        traits: ("headers" or "resampled", sentence) of what betrays how the prediction was made.
    """

    values: Values
    reasons: dict[str, str] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    truth_voxels: dict[str, int] = field(default_factory=dict)
    lesions: dict[str, dict[str, list[dict[str, object]]]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    label_counts: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    volumes_ml: dict[str, tuple[float, float]] = field(default_factory=dict)
    confidence: dict[str, Confidence] = field(default_factory=dict)
    traits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Protocol:
    """A way to score, with the facts that a reader of its numbers needs.

    Attributes:
        name: as on the command line.
        about: one sentence.
        empty_policy: what empty regions are worth.
        scheme: name of the label scheme it reads.
        score: one case.
        pool: sums and peaks over cases (arrays, elementwise) to region -> metric -> pooled value; None if it has none.
        fixed: True if the labels and regions are the challenge's own, whatever the scheme says.
        same_grid: True if truth and prediction must lie at one place; official scorers compare arrays blindly.
        samples: True if a case has many references, whose scores are averaged.
    """

    name: str
    about: str
    empty_policy: str
    scheme: str
    score: Callable[[Pair, LabelScheme, ScoreOptions], CaseScore]
    pool: Callable[[Sums, Sums], dict[str, dict[str, np.ndarray]]] | None = None
    fixed: bool = True
    same_grid: bool = False
    samples: bool = False
