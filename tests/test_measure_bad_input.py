"""Label maps that are odd, broken or empty: measured as far as they go, or refused in a sentence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hilum.errors import GeometryError, LabelError
from hilum.labels import SCHEMES
from hilum.results.measure import measure
from hilum.volume import Grid, Volume
from making_shapes import ball, ellipsoid, grid_around, rotation

KITS, LITS, ABDOMEN = SCHEMES["kits"], SCHEMES["lits"], SCHEMES["abdomen"]


def pair(grid: Grid) -> Volume:
    """Two kidneys, a tumour in the right one."""
    array = np.zeros(grid.shape, np.uint8)
    for x in (40, -40):
        array[ellipsoid(grid, (x, 0, 0), (22, 20, 40))] = 1
    array[ball(grid, (50, 0, 0), 14)] = 2
    return Volume.on(grid, array)


def strict(table: dict[str, Any]) -> dict[str, Any]:
    """What survives strict JSON: no NaN, no infinity."""
    found: dict[str, Any] = json.loads(json.dumps(table, allow_nan=False))
    return found


def test_labels_without_a_scan_have_sizes_and_no_densities() -> None:
    table = strict(measure(pair(grid_around((100, 60, 150), (2.5, 1.5, 1.5))), KITS))
    for entry in (*table["organs"], *table["lesions"]):
        assert entry["hu_mean"] is entry["hu_percentiles"] is entry["enhancement"] is None
    assert table["lesions"][0]["volume_ml"] > 10


def test_a_scan_of_another_grid_is_refused() -> None:
    labels = pair(grid_around((100, 60, 150), (2.5, 1.5, 1.5)))
    scan = labels.with_array(np.zeros(labels.shape, np.int16))
    with pytest.raises(GeometryError, match="shape"):
        measure(labels, KITS, scan.cropped((0, 0, 1), scan.shape))
    moved = np.array(scan.affine)
    moved[:3, 0] *= 1.1
    with pytest.raises(GeometryError, match="mm away"):
        measure(labels, KITS, Volume(scan.array, moved))


@pytest.mark.parametrize("value", [7, -1, 2.5, float("nan"), 300])
def test_unknown_labels_are_refused(value: float) -> None:
    array = np.zeros((4, 4, 4), np.float32 if isinstance(value, float) else np.int32)
    array[1, 1, 1] = value
    with pytest.raises(LabelError):
        measure(Volume(array, np.eye(4)), KITS)


@pytest.mark.parametrize("scheme", ["kits", "kits19", "lits", "abdomen"])
def test_an_empty_map_is_measured_as_empty(scheme: str) -> None:
    table = strict(measure(Volume(np.zeros((4, 5, 6), np.uint8), np.eye(4)), SCHEMES[scheme]))
    assert table["organs"] == table["lesions"] == [] and table["lesion_count"] == 0
    assert set(table["volumes_ml"].values()) == {0} and table["warnings"] == ["The label map is empty."]
    if table["split_function"] is not None:
        assert table["split_function"]["not_computable"].startswith("because")


def test_two_dimensions_are_one_slice_or_refused() -> None:
    with pytest.raises(GeometryError, match="2 axes"):
        measure(Volume(np.zeros((9, 9), np.uint8), np.eye(4)), KITS)
    whole = pair(grid_around((100, 60, 150), (2.5, 1.5, 1.5)))
    middle = whole.shape[0] // 2
    table = strict(measure(whole.cropped((middle, 0, 0), (middle + 1, *whole.shape[1:])), KITS))
    (lesion,) = table["lesions"]
    assert lesion["long_axis_mm"] == pytest.approx(28, abs=1) and lesion["cut_by_field_of_view"]
    assert all(x["cut_by_field_of_view"] for x in table["organs"])
    assert table["split_function"]["right_percent"] is None
    assert "field of view" in table["split_function"]["not_computable"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (1, 7, 1), (7, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("value", [1, 2, 3])
def test_a_map_full_of_one_label_is_measured(shape: tuple[int, int, int], value: int) -> None:
    table = strict(measure(Volume(np.full(shape, value, np.uint8), np.eye(4)), KITS))
    assert sum(table["volumes_ml"].values()) == pytest.approx(np.prod(shape) / 1000, abs=1e-4)
    assert len(table["lesions"]) == (value > 1 and np.prod(shape) >= 3)


def test_ten_to_one_voxels() -> None:
    fine = measure(pair(grid_around((100, 60, 150), (1.0, 1.0, 1.0))), KITS)
    coarse = strict(measure(pair(grid_around((100, 60, 150), (10.0, 1.0, 1.0))), KITS))
    for one, other in zip(fine["organs"], coarse["organs"], strict=True):
        assert other["volume_ml"] == pytest.approx(one["volume_ml"], rel=0.03)
        assert other["surface_cm2"] == pytest.approx(one["surface_cm2"], rel=0.1)
        assert other["length_mm"] == pytest.approx(one["length_mm"], abs=10)
    one, other = fine["lesions"][0], coarse["lesions"][0]
    assert other["long_axis_mm"] == pytest.approx(one["long_axis_mm"], abs=2)
    assert other["renal"]["c_index"]["value"] == pytest.approx(one["renal"]["c_index"]["value"], rel=0.1)


@pytest.mark.parametrize("degrees", [10, 35])
def test_oblique_grids_measure_the_same_anatomy(degrees: float) -> None:
    straight = measure(pair(grid_around((100, 90, 150), (1.2, 1.0, 1.0))), KITS)
    turned = strict(measure(pair(grid_around((130, 120, 180), (1.2, 1.0, 1.0), rotation(degrees, (1, 0.2, 0)))), KITS))
    assert [x["side"] for x in turned["organs"]] == ["right", "left"]
    for one, other in zip(straight["organs"], turned["organs"], strict=True):
        for key, share in (("volume_ml", 0.01), ("surface_cm2", 0.02), ("length_mm", 0.03), ("sphericity", 0.02)):
            assert other[key] == pytest.approx(one[key], rel=share), key
        assert other["centroid_mm"] == pytest.approx(one["centroid_mm"], abs=0.3)
    one, other = straight["lesions"][0], turned["lesions"][0]
    assert other["contact_area_cm2"] == pytest.approx(one["contact_area_cm2"], rel=0.03)
    # thin rims are opened away voxel by voxel, which depends a little on how the grid lies
    assert other["exophytic_percent"] == pytest.approx(one["exophytic_percent"], abs=2.5)


def test_a_sheared_grid_is_measured_in_millimetres() -> None:
    grid = grid_around((100, 90, 150), (1.5, 1.0, 1.0))
    affine = np.array(grid.affine)
    affine[1, 0] += 0.45  # a gantry tilt of 17 degrees
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2)
    straight, tilted = measure(pair(grid), KITS), strict(measure(pair(Grid(grid.shape, affine)), KITS))
    for one, other in zip(straight["organs"], tilted["organs"], strict=True):
        assert other["volume_ml"] == pytest.approx(one["volume_ml"], rel=0.01)
        assert other["surface_cm2"] == pytest.approx(one["surface_cm2"], rel=0.02)
    one, other = (x["lesions"][0]["renal"]["resection"] for x in (straight, tilted))
    assert other["value"] == pytest.approx(one["value"], rel=0.03)


def test_a_lesion_across_the_cut_of_a_horseshoe_kidney_stays_whole() -> None:
    grid = grid_around((100, 60, 150), (2.5, 1.5, 1.5))
    labels = pair(grid)
    array = labels.array.copy()
    array[ellipsoid(grid, (0, 0, -25), (30, 9, 8))] = 1
    array[ball(grid, (4, 0, -25), 9)] = 2
    table = strict(measure(labels.with_array(array), KITS))
    assert any("horseshoe" in x for x in table["warnings"])
    assert len(table["lesions"]) == 2
    for side in ("right", "left"):
        listed = sum(x["volume_ml"] for x in table["lesions"] if x["side"] == side)
        assert table["volumes_by_side_ml"]["tumour"][side] == pytest.approx(listed, abs=1e-3)
    assert sum(x["tumour_ml"] for x in table["organs"]) == pytest.approx(table["volumes_ml"]["tumour"], abs=1e-3)


def test_burden_is_tumour_over_the_whole_liver() -> None:
    grid = grid_around((90, 90, 90), (2.0, 2.0, 2.0))
    array = np.zeros(grid.shape, np.uint8)
    array[ball(grid, (0, 0, 0), 40)] = 1
    array[ball(grid, (10, 0, 0), 20)] = 2
    (liver,) = measure(Volume.on(grid, array), LITS)["organs"]
    assert liver["tumour_burden_percent"] == pytest.approx(12.5, abs=0.2)
    assert liver["tumour_ml"] + liver["parenchyma_ml"] == pytest.approx(liver["volume_ml"], abs=1e-3)
    assert liver["sinus"] is None and liver["sphericity"] == pytest.approx(1, abs=0.02)
    assert measure(Volume.on(grid, array), LITS)["split_function"] is None
