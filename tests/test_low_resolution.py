"""When a cascade is worth it: what nnU-Net's own default planner (nnunetv2 2.8.1) says to eight data sets."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from hilum.config import PrepareOptions
from hilum.prepare.fingerprint import Fingerprint
from hilum.prepare.low_resolution import low_resolution, patch_share
from hilum.prepare.plan import make_plan
from test_plan import HU, KITS, facts

Triple = tuple[int, int, int]
FROM_NNUNET = [
    # median case, its spacing; spacing, patch and median case of 3d_lowres
    ((526, 512, 512), (0.78125, 0.78125, 0.78125), (2.0118, 2.0118, 2.0118), (128, 128, 128), (204, 199, 199)),
    ((60, 512, 512), (5.0, 0.8, 0.8), (5.0, 1.2464, 1.2464), (40, 224, 192), (60, 329, 329)),
    ((432, 512, 512), (1.0, 0.767578125, 0.767578125), (2.4273, 1.8631, 1.8631), (128, 128, 128), (178, 211, 211)),
    ((90, 512, 512), (5.0, 0.79, 0.79), (5.0, 1.3449, 1.3449), (56, 192, 192), (90, 301, 301)),
    ((700, 512, 512), (1.5, 0.8, 0.8), (4.0979, 2.1855, 2.1855), (160, 128, 112), (256, 187, 187)),
]


@pytest.mark.parametrize(("shape", "spacing_mm", "low_mm", "patch", "median"), FROM_NNUNET)
def test_the_first_network_is_planned_as_nnunet_plans_it(
    shape: Triple, spacing_mm: tuple[float, ...], low_mm: tuple[float, ...], patch: Triple, median: Triple
) -> None:
    fingerprint, options = Fingerprint(tuple(facts(shape, spacing_mm)), HU, ()), PrepareOptions()
    plan = make_plan(fingerprint, options, KITS)
    found = low_resolution(plan, fingerprint, options, KITS)
    assert found.spacing_mm == low_mm and found.share == patch_share(plan) < 0.25
    assert "a cascade is worth it" in found.said
    first = make_plan(fingerprint, replace(options, spacing_mm=low_mm), KITS)
    assert (first.patch, first.median_shape, first.batch) == (patch, median, 2)


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "said"),
    [
        ((160, 160, 160), (1.0, 1.0, 1.0), "51 % of the median case .* a quarter or more"),
        ((200, 220, 240), (1.2, 1.0, 1.0), "more than half of the voxels left"),
        ((180, 200, 200), (1.0, 1.0, 1.0), "29 % of the median case .* a quarter or more"),
    ],
)
def test_where_a_patch_sees_enough_there_is_none(shape: Triple, spacing_mm: tuple[float, ...], said: str) -> None:
    fingerprint, options = Fingerprint(tuple(facts(shape, spacing_mm)), HU, ()), PrepareOptions()
    found = low_resolution(make_plan(fingerprint, options, KITS), fingerprint, options, KITS)
    assert found.spacing_mm is None and re.search(said, found.said), found.said


def test_a_patch_that_was_asked_for_is_the_first_network_s_too() -> None:
    fingerprint, options = Fingerprint(tuple(facts((256,) * 3, (1.0,) * 3)), HU, ()), PrepareOptions(patch=(64, 64, 64))
    found = low_resolution(make_plan(fingerprint, options, KITS), fingerprint, options, KITS)
    assert found.spacing_mm is not None and found.share == 1 / 64
    covered = 64**3 / (256 / found.spacing_mm[0]) ** 3
    assert 0.25 <= covered < 0.25 * 1.03**3
