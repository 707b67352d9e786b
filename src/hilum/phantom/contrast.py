"""How bright each tissue is in each contrast phase.

Comes in: a random generator and perhaps a phase. Goes out: one patient's HU by tissue name. It knows no shapes.

The means and spreads are typical values of diagnostic abdominal CT at 120 kVp, rounded; they follow no single
publication. Enhancement varies together in a patient (weight, dose, timing), so one factor scales all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hilum.errors import UsageError

# HU without contrast: mean, spread between patients
PLAIN: dict[str, tuple[float, float]] = {
    "skin": (35, 8), "fat": (-104, 5), "visceral_fat": (-100, 5), "muscle": (52, 4), "cartilage": (90, 10),
    "cortical": (860, 110), "marrow": (145, 32), "disc": (78, 8), "cord": (28, 4), "lung": (-845, 25),
    "liver": (57, 6), "bile": (8, 4), "spleen": (47, 4), "pancreas": (40, 5), "gut_wall": (42, 5),
    "fluid": (15, 6), "aorta": (41, 4), "cava": (39, 4), "portal": (40, 4), "cortex": (33, 3), "medulla": (31, 3),
    "urine": (6, 4), "sinus_fat": (-82, 10), "heart": (42, 4), "cyst": (7, 4), "adrenal": (20, 6),
}  # fmt: skip
# enhancement (HU added), by phase
ENHANCED: dict[str, dict[str, float]] = {
    "none": {},
    "arterial": {
        "muscle": 4, "marrow": 15, "liver": 16, "spleen": 72, "pancreas": 62, "gut_wall": 45, "aorta": 255, "cava": 75,
        "portal": 85, "cortex": 148, "medulla": 58, "heart": 130, "skin": 5, "adrenal": 50,
    },
    "nephrographic": {
        "muscle": 9, "marrow": 20, "liver": 50, "spleen": 72, "pancreas": 50, "gut_wall": 50, "aorta": 108, "cava": 102,
        "portal": 118, "cortex": 148, "medulla": 138, "heart": 100, "skin": 10, "adrenal": 45,
    },
}  # fmt: skip
PHASES = tuple(ENHANCED)


@dataclass(frozen=True)
class Contrast:
    """One patient's brightness: the phase, and HU by tissue name."""

    phase: str
    hu: dict[str, float]


def draw_contrast(rng: np.random.Generator, phase: str | None, plain_share: float) -> Contrast:
    """One patient's phase and HU.

    Args:
        rng: random numbers; always the same count is drawn.
        phase: one of ``PHASES``, or None to draw it.
        plain_share: how often a drawn phase is "none"; the rest is arterial (45 %) or nephrographic (55 %).
    """
    if phase is not None and phase not in PHASES:
        raise UsageError(f"phase {phase!r}", wanted=f"one of {list(PHASES)}")
    first, second = rng.uniform(size=2)
    drawn = "none" if first < plain_share else "arterial" if second < 0.45 else "nephrographic"
    phase = phase or drawn
    strength = float(np.clip(rng.normal(1.0, 0.09), 0.8, 1.2))
    hu = {
        name: float(np.clip(rng.normal(mean, spread), mean - 2 * spread, mean + 2 * spread))
        + strength * float(rng.uniform(0.93, 1.07)) * ENHANCED[phase].get(name, 0.0)
        for name, (mean, spread) in PLAIN.items()
    }
    # a fatty liver is common
    if rng.uniform() < 0.2:
        hu["liver"] -= float(rng.uniform(6, 18))
    return Contrast(phase, hu)
