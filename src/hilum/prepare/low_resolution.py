"""When a cascade is worth it, and at which spacing its first network works.

Comes in: the plan at full resolution, the fingerprint, the user's wishes. Goes out: yes or no with its reason, and a
spacing. The rule is nnU-Net v2's (its default planner): a cascade is worth it where a patch covers less than a quarter
of the median case's voxels. Its first network's voxels grow by 3 % at a time, those axes first that are less than half
as coarse as the coarsest, until a patch planned for them covers a quarter; where that leaves more than half of the
voxels, there is nothing to gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hilum.config import PrepareOptions
from hilum.labels import LabelScheme
from hilum.prepare.fingerprint import Fingerprint
from hilum.prepare.memory import PLAIN, Encoder
from hilum.prepare.plan import Plan, make_plan

COVERED = 0.25  # of the median case by a patch: from here on a network sees enough around it
_GROWTH = 1.03
_LEAST_FACTOR = 2.0  # between the voxels of both resolutions
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class LowResolution:
    """What the rule says.

    Attributes:
        share: of the median case that a patch covers at full resolution.
        spacing_mm: at which a patch covers a quarter; None where no cascade is worth it.
        said: why, as a sentence.
    """

    share: float
    spacing_mm: Spacing | None
    said: str


def patch_share(plan: Plan) -> float:
    """The share of the median case that a patch covers."""
    return math.prod(plan.patch) / math.prod(plan.median_shape)


def low_resolution(
    plan: Plan, fingerprint: Fingerprint, options: PrepareOptions, scheme: LabelScheme, encoder: Encoder = PLAIN
) -> LowResolution:
    """Whether a cascade is worth it for a plan.

    Args:
        plan: at full resolution, in 3D.
        fingerprint: that it was made from.
        options: the wishes that it was made with; a patch that they name is that of the first network too.
        scheme: for the number of classes.
        encoder: what the network costs.
    """
    share, full = patch_share(plan), math.prod(plan.median_shape)
    covers = f"a patch of {list(plan.patch)} covers {100 * share:.2g} % of the median case {list(plan.median_shape)}"
    if share >= COVERED:
        return LowResolution(share, None, f"{covers}, a quarter or more: by nnU-Net's rule no cascade is worth it")
    spacing, voxels, seen = np.array(plan.spacing_mm), float(full), math.prod(plan.patch)
    while seen / voxels < COVERED:
        fine = max(spacing) / spacing > 2
        spacing[fine if fine.any() else slice(None)] *= _GROWTH
        voxels = full * math.prod(plan.spacing_mm) / float(np.prod(spacing))
        if not options.patch:
            wanted = replace(options, spacing_mm=tuple(float(mm) for mm in spacing))
            seen = math.prod(make_plan(fingerprint, wanted, scheme, encoder).patch)
    d, h, w = (round(float(mm), 4) for mm in spacing)
    if full / voxels < _LEAST_FACTOR:
        said = f"{covers}; at {d:g} x {h:g} x {w:g} mm it covers a quarter, with more than half of the voxels left"
        return LowResolution(share, None, f"{said}: by nnU-Net's rule no cascade is worth it")
    return LowResolution(share, (d, h, w), f"{covers}: a cascade is worth it, first at {d:g} x {h:g} x {w:g} mm")
