"""HU -> WHAT THE NETWORK SEES: clipped, shifted, scaled, and bent by a contrast.

Comes in: a fingerprint and the user's wishes. Goes out: a ``Normalisation``, which travels in the plan and is applied
on the device. It knows no scan.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hilum.config import PrepareOptions
from hilum.errors import RecipeError
from hilum.prepare.fingerprint import Fingerprint

log = logging.getLogger("hilum.prepare.plan")  # its warnings are the plan's
_GAMMA = (0.1, 10.0)


@dataclass(frozen=True)
class Normalisation:
    """HU to what the network sees: ``((clip(hu, low, high) - mean) / std) ** gamma``.

    Attributes:
        kind: "ct" (percentiles, mean and deviation of labelled voxels), "zscore" (the same without clipping) or
            "window" (``low`` becomes 0 and ``high`` 1).
        low: HU below are raised to it.
        high: HU above are lowered to it.
        mean: HU that become 0.
        std: HU that become 1 step.
        gamma: contrast, of kind "window" alone, as MONAI's AdjustContrast has it; above 1 darkens.
    """

    kind: Literal["ct", "zscore", "window"]
    low: float
    high: float
    mean: float
    std: float
    gamma: float = 1.0

    def apply(self, hu: Any) -> Any:
        """Normalised float32 of a NumPy array or torch tensor of any number type; the input stays as it is."""
        values = hu.astype(np.float32) if isinstance(hu, np.ndarray) else hu.float()
        values = (values.clip(self.low, self.high) - self.mean) / self.std
        return values if self.gamma == 1 else values**self.gamma


def check_intensities(options: PrepareOptions) -> None:
    """Refuse windows and contrasts that make no sense.

    Raises:
        RecipeError: naming the key, what was found, what is wanted.
    """
    window = options.window_hu
    if options.normalisation == "window" and not (len(window) == 2 and window[0] < window[1]):
        raise RecipeError(
            f"prepare.window_hu = {list(window)} with normalisation 'window'",
            wanted="two ascending HU",
            fix="e.g. window_hu = [-160, 240]",
        )
    if not _GAMMA[0] <= options.gamma <= _GAMMA[1]:
        raise RecipeError(f"prepare.gamma = {options.gamma}", wanted=f"{_GAMMA[0]:g} to {_GAMMA[1]:g}")
    if options.gamma != 1 and options.normalisation != "window":
        raise RecipeError(
            f"prepare.gamma = {options.gamma} with normalisation {options.normalisation!r}",
            wanted="values from 0 to 1, which only a window makes",
            fix="set prepare.normalisation = 'window' and window_hu, or leave gamma out",
        )


def planned_normalisation(fingerprint: Fingerprint, options: PrepareOptions) -> Normalisation:
    """What the labelled voxels' HU, or the recipe's window, decide."""
    hu = fingerprint.hu
    std = max(hu.std, 1.0)  # labelled voxels of one value would divide by nought; a HU is below any scanner's noise
    if options.normalisation == "window":
        low, high = options.window_hu
        return Normalisation("window", low, high, mean=low, std=high - low, gamma=options.gamma)
    if options.window_hu:
        log.warning("prepare.window_hu has no effect with normalisation %r", options.normalisation)
    if options.normalisation == "zscore":
        limits = np.iinfo(np.int16)  # what a prepared case can hold: nothing is clipped
        return Normalisation("zscore", float(limits.min), float(limits.max), hu.mean, std)
    return Normalisation("ct", hu.low, hu.high, hu.mean, std)
