"""What every scoring protocol shares: what a person may choose, the scores of a case, a protocol's facts.

Comes in: a ``Pair``, which a protocol turns into a ``CaseScore``. Knows no files and no particular challenge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from hilum.errors import UsageError
from hilum.judge.confidence import Confidence
from hilum.judge.lesions import Neighbours
from hilum.judge.pair import Pair
from hilum.labels import LabelScheme

Values = dict[str, dict[str, float]]
Sums = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ScoreOptions:
    """What a person may choose, of the protocols that leave it open (``Protocol.takes``).

    Attributes:
        tolerances_mm: of NSD.
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

    def checked(self, protocol: Protocol) -> ScoreOptions:
        """These options, if they mean something.

        Raises:
            UsageError: a number out of bounds, or a choice that the protocol has made itself.
        """
        above = {"tolerances_mm": self.tolerances_mm, "diameters_mm": self.diameters_mm}
        for name, values in above.items():
            if not values or not all(np.isfinite(value) and value > 0 for value in values):
                raise UsageError(f"{name} = {values}", wanted="one or more lengths above 0 mm")
        if not 0 <= self.lesion_iou < 1:
            raise UsageError(f"lesion_iou = {self.lesion_iou}", wanted="0 to below 1")
        if self.connectivity not in (6, 18, 26):
            raise UsageError(f"connectivity = {self.connectivity}", wanted="6, 18 or 26 neighbours")
        for field_ in fields(self):
            chosen = field_.name != "threads" and getattr(self, field_.name) != field_.default
            if chosen and field_.name not in protocol.takes:
                raise UsageError(
                    f"protocol {protocol.name!r} decides {field_.name} itself",
                    wanted=f"{list(protocol.takes)}" if protocol.takes else "none of these options",
                    fix="leave the option away, or choose protocol 'plain'",
                )
        return self


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
        takes: which of ``ScoreOptions`` a person may choose.
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
    takes: tuple[str, ...] = ()
