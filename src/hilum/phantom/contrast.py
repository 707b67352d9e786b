"""How bright each tissue of one patient is.

Comes in: a random generator and perhaps a phase. Goes out: one patient's HU by tissue name. It knows no shapes.

``appearance="random"`` draws brightness far more widely than people differ, but in an order CT could show: for networks
that must not trust HU. The idea is SynthSeg's (Billot et al., Med Image Anal 2023;86:102789), who draw the intensity of
each label at random; here only within what CT can be, as HU are calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hilum.errors import UsageError
from hilum.phantom.tissues import ENHANCED, PHASES, PLAIN, STRENGTH_SPREAD

APPEARANCES = ("usual", "random")
# how often each phase is drawn when none is asked for, besides "none": arterial, nephrographic, delayed, excretory
_SHARES = (0.45, 0.42, 0.07, 0.06)
# half the width (HU) within which "random" moves a tissue
_JITTER = {
    "fat": 14.0, "visceral_fat": 16.0, "sinus_fat": 16.0, "lung": 90.0, "cortical": 380.0, "marrow": 110.0,
    "cartilage": 60.0, "urine": 12.0, "bile": 14.0, "cyst": 12.0,
}  # fmt: skip


@dataclass(frozen=True)
class Contrast:
    """One patient's brightness: the phase ("random" if it follows none), and HU by tissue name."""

    phase: str
    hu: dict[str, float]


def draw_contrast(
    rng: np.random.Generator, phase: str | None, plain_share: float, *, late: bool = True, appearance: str = "usual"
) -> Contrast:
    """One patient's phase and HU.

    Args:
        rng: random numbers.
        phase: one of ``PHASES``, or None to draw it.
        plain_share: how often a drawn phase is "none".
        late: whether a drawn phase may be delayed or excretory.
        appearance: "usual", or "random" for brightness that follows no phase.

    Raises:
        UsageError: no such phase or appearance.
    """
    if phase is not None and phase not in PHASES:
        raise UsageError(f"phase {phase!r}", wanted=f"one of {list(PHASES)}")
    if appearance not in APPEARANCES:
        raise UsageError(f"appearance {appearance!r}", wanted=f"one of {list(APPEARANCES)}")
    first, second = rng.uniform(size=2)
    if not late:
        second *= _SHARES[0] + _SHARES[1]
    number = int(np.searchsorted(np.cumsum(_SHARES), second, side="right"))
    drawn = "none" if first < plain_share else PHASES[1 + min(number, 3)]
    phase = phase or drawn
    strength = float(np.clip(rng.normal(1.0, STRENGTH_SPREAD), 0.75, 1.25))
    hu = {
        name: float(np.clip(rng.normal(mean, spread), mean - 2 * spread, mean + 2 * spread))
        + strength * float(rng.uniform(0.93, 1.07)) * ENHANCED[phase].get(name, 0.0)
        for name, (mean, spread, _) in PLAIN.items()
    }
    # a fatty liver is common
    if rng.uniform() < 0.2:
        hu["liver"] -= float(rng.uniform(6, 18))
    if appearance == "random":
        return Contrast("random", _anything(rng))
    return Contrast(phase, hu)


def _anything(rng: np.random.Generator) -> dict[str, float]:
    """A moment between two phases drawn at random, a strength from none to one and a half, and each tissue moved."""
    one, two = (PHASES[int(rng.integers(len(PHASES)))] for _ in range(2))
    share, strength = float(rng.uniform()), float(rng.uniform(0.1, 1.5))
    hu = {}
    for name, (mean, _, _) in PLAIN.items():
        added = share * ENHANCED[one].get(name, 0.0) + (1 - share) * ENHANCED[two].get(name, 0.0)
        hu[name] = mean + strength * added + float(rng.uniform(-1, 1)) * _JITTER.get(name, 24.0)
    return hu
