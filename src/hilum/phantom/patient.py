"""All that is drawn about one patient before a voxel is painted.

Comes in: a seed. Goes out: a frozen ``Patient``: trunk, organs, kidneys, lesions, brightness. It knows no grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hilum.phantom.anatomy import Torso, draw_torso
from hilum.phantom.contrast import Contrast, draw_contrast
from hilum.phantom.kidneys import ANOMALIES, Kidney, draw_kidneys
from hilum.phantom.lesions import Lesion, draw_lesions, draw_liver_lesions
from hilum.phantom.viscera import Viscera, draw_viscera

# more often than in people (one in several hundred each), so that a set of a hundred holds a few
ANOMALY_SHARE = 0.05


@dataclass(frozen=True)
class Patient:
    """One patient's body; ``anomaly`` of the kidneys is "" or one of ``kidneys.ANOMALIES``."""

    torso: Torso
    viscera: Viscera
    kidneys: tuple[Kidney, ...]
    lesions: tuple[Lesion, ...]
    contrast: Contrast
    anomaly: str = ""

    @property
    def lowest_mm(self) -> float:
        """World height of the lowest kidney's lower end."""
        return float(min(k.outline().bounds()[0][2] for k in self.kidneys) * self.torso.scale)


def stream(seed: int, number: int) -> np.random.Generator:
    """The random numbers of one aspect of one patient."""
    return np.random.Generator(np.random.PCG64([seed, number]))


def draw_patient(
    seed: int,
    *,
    small: bool = False,
    phase: str | None = None,
    appearance: str = "usual",
    liver: bool = False,
    anomaly: str | None = None,
) -> Patient:
    """Everything about a body but its tissue noise.

    Args:
        seed: the patient.
        small, phase, appearance: as ``make_case`` takes them.
        liver: a patient of a liver data set: lesions lie in the liver, the kidneys have cysts at most.
        anomaly: of the kidneys; drawn if None, never drawn if small.
    """
    body = stream(seed, 0)
    torso = draw_torso(body)
    viscera = draw_viscera(body, torso)
    odd = stream(seed, 6)
    first, second = odd.uniform(size=2)
    if anomaly is None:
        anomaly = ANOMALIES[int(second * len(ANOMALIES))] if first < ANOMALY_SHARE and not small else ""
    kidneys = draw_kidneys(body, scale=torso.scale, small=small, anomaly=anomaly)
    lesions = draw_lesions(stream(seed, 1), kidneys, torso.scale, small)
    if liver:
        lesions = tuple(lesion for lesion in lesions if lesion.kind == "cyst")
    if liver or not small:
        lesions += draw_liver_lesions(odd, viscera.right_lobe, torso.scale, liver)
    plain = 0.0 if small else 0.06
    contrast = draw_contrast(stream(seed, 2), phase, plain, late=not small, appearance=appearance)
    return Patient(torso, viscera, kidneys, lesions, contrast, anomaly)
