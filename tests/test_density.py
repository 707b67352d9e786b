"""Densities, enhancement, fluid and necrosis against what was put in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import GeometryError, UsageError
from hilum.labels import SCHEMES
from hilum.results.density import composition, enhancement, hu_statistics, texture
from hilum.results.measure import measure
from hilum.volume import Grid, Volume
from making_shapes import ball, grid_around

KITS = SCHEMES["kits"]
GRID = grid_around((40, 40, 40), (1.5, 1.0, 1.0))
LESION = ball(GRID, (0, 0, 0), 15)


def noisy(values: np.ndarray, sd: float = 10.0, seed: int = 0) -> np.ndarray:
    return (values + np.random.default_rng(seed).normal(0, sd, values.shape)).round().astype(np.int16)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3024, 3071), min_size=1, max_size=80), st.sampled_from(["int16", "int32", "float32"]))
def test_statistics_are_those_of_numpy(values: list[int], dtype: str) -> None:
    hu = np.array(values, dtype)
    found = hu_statistics(hu)
    assert found["hu_mean"] == pytest.approx(np.mean(values), abs=1e-3)
    assert found["hu_sd"] == pytest.approx(np.std(values), rel=1e-5, abs=1e-3)
    exact = np.percentile(values, [5, 25, 50, 75, 95], method="inverted_cdf")
    assert list(found["hu_percentiles"].values()) == pytest.approx(exact.tolist())
    assert list(found["hu_percentiles"]) == ["p5", "p25", "p50", "p75", "p95"]


def test_without_a_scan_all_is_null() -> None:
    assert hu_statistics(None) == {"hu_mean": None, "hu_sd": None, "hu_percentiles": None}
    assert hu_statistics(np.zeros(0, np.int16))["hu_mean"] is None
    assert set(texture(LESION, GRID, None, None).values()) == {None}
    assert enhancement(np.zeros(3), None) is None and enhancement(None, np.zeros(3)) is None
    assert composition(None, "tumour") == {"value": None, "basis": None}
    assert composition(None, "cyst") == {"value": "cystic", "basis": "label"}


@pytest.mark.parametrize(
    ("change", "judgement"), [(60, "enhancing"), (-60, "enhancing"), (14, "equivocal"), (6, "none")]
)
def test_enhancement_is_second_less_first(change: int, judgement: str) -> None:
    first = np.full(100, 35, np.int16)
    found = enhancement(first, first + np.int16(change))
    assert found is not None and found["change_hu"] == change and found["judgement"] == judgement
    assert found["hu_mean_second"] == 35 + change and found["hu_sd_second"] == 0


def test_a_cyst_is_fluid_and_a_tumour_is_solid_under_noise() -> None:
    for hu, value in ((6, "cystic"), (110, "solid"), (-80, "solid")):
        look = texture(LESION, GRID, noisy(np.full(GRID.shape, hu)), None)
        assert composition(look["fluid_percent"], "tumour") == {"value": value, "basis": "HU"}
    assert composition(50.0, "cyst")["value"] == "mixed"


def test_a_dead_core_is_found_by_density_and_by_enhancement() -> None:
    core = ball(GRID, (0, 0, 0), 9)
    first = noisy(np.where(core, 10, 60))
    second = noisy(np.where(core, 12, 130), seed=1)
    deep = ball(GRID, (0, 0, 0), 13).sum()
    one, two = texture(LESION, GRID, first, None), texture(LESION, GRID, first, second)
    assert one["necrosis"]["basis"] == "density of fluid" and two["necrosis"]["basis"] == "no enhancement"
    for look in (one, two):
        exact = 100 * core.sum() / deep
        assert exact - 12 < look["necrosis"]["percent"] < exact  # averaging takes about a voxel off the core
    assert one["heterogeneity"]["core_minus_rim_hu"] < -25
    # a core of 32 HU is no fluid, but does not enhance
    third = texture(LESION, GRID, noisy(np.where(core, 32, 60)), noisy(np.where(core, 33, 130), seed=1))
    assert third["fluid_percent"] < 5 and third["necrosis"]["percent"] > 25


def test_heterogeneity_grows_with_what_is_mixed() -> None:
    even = texture(LESION, GRID, np.full(GRID.shape, 60, np.int16), None)["heterogeneity"]
    assert even == {"iqr_hu": 0, "entropy_bits": 0, "core_minus_rim_hu": 0}
    mixed = texture(LESION, GRID, noisy(np.full(GRID.shape, 60), 40), None)["heterogeneity"]
    assert mixed["iqr_hu"] == pytest.approx(1.349 * 40, rel=0.05) and 2 < mixed["entropy_bits"] < 4


def test_few_voxels_have_no_core() -> None:
    mask = np.zeros((3, 5, 5), bool)
    mask[1, 2, 1:4] = True
    look = texture(mask, Grid((3, 5, 5), np.eye(4)), np.full((3, 5, 5), 50, np.int16), None)
    assert look["fluid_percent"] is None and look["necrosis"] is None
    assert look["heterogeneity"]["core_minus_rim_hu"] is None or look["heterogeneity"]["core_minus_rim_hu"] == 0


def two_phases() -> tuple[Volume, Volume, Volume]:
    grid = grid_around((60, 60, 140), (2.0, 2.0, 2.0))
    labels = np.zeros(grid.shape, np.uint8)
    for x in (45, -45):
        labels[ball(grid, (x, 0, 0), 25)] = 1
    labels[ball(grid, (45, 15, 0), 10)] = 2
    labels[ball(grid, (-45, 15, 0), 10)] = 3
    first = np.select([labels == n for n in (1, 2, 3)], [35, 38, 5], -90)
    second = np.select([labels == n for n in (1, 2, 3)], [160, 120, 7], -90)
    return Volume.on(grid, labels), Volume.on(grid, first.astype(np.int16)), Volume.on(grid, second.astype(np.int16))


def test_two_phases_reach_organs_and_lesions() -> None:
    labels, first, second = two_phases()
    table = measure(labels, KITS, first, second.oriented("RAS"))
    assert [x["enhancement"]["change_hu"] for x in table["organs"]] == [125, 125]
    assert {x["kind"]: x["enhancement"]["judgement"] for x in table["lesions"]} == {
        "tumour": "enhancing",
        "cyst": "none",
    }
    assert {x["kind"]: x["composition"]["value"] for x in table["lesions"]} == {"tumour": "solid", "cyst": "cystic"}
    assert [x["enhancement"] for x in measure(labels, KITS, first)["lesions"]] == [None, None]


def test_a_second_phase_needs_a_first_and_the_same_grid() -> None:
    labels, first, second = two_phases()
    with pytest.raises(UsageError, match="second phase"):
        measure(labels, KITS, None, second)
    with pytest.raises(GeometryError):
        measure(labels, KITS, first, second.cropped((1, 0, 0), second.shape))
    with pytest.raises(UsageError, match="margin"):
        measure(labels, KITS, margin_mm=-1)
