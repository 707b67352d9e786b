"""Measurements against what geometry says: spheres, ellipsoids, boxes, in every axis order."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.errors import GeometryError, LabelError
from hilum.labels import SCHEMES, Label, LabelScheme, Region
from hilum.results.diameters import diameters
from hilum.results.measure import (
    SUMMARY_FIELDS,
    bounding_box,
    measure,
    summary_row,
    write_measurements,
    write_summary,
)
from hilum.results.sides import body_mid_x_mm
from hilum.volume import Grid, Volume

SHARED = Path(__file__).parents[2] / "shared" / "data"
KITS, LITS, ABDOMEN = SCHEMES["kits"], SCHEMES["lits"], SCHEMES["abdomen"]


def spl_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    """An SPL grid whose centre is world 0."""
    d, h, w = spacing_mm
    affine = np.array([[0, 0, -w, 0], [0, -h, 0, 0], [d, 0, 0, 0], [0, 0, 0, 1]], float)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def world_of(grid: Grid) -> np.ndarray:
    return grid.world(np.stack(np.indices(grid.shape), axis=-1))


def ball(grid: Grid, centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    return ((world_of(grid) - centre_mm) ** 2).sum(axis=-1) <= radius_mm**2


def kidneys(shape: tuple[int, int, int] = (24, 40, 60), spacing_mm: float = 4.0) -> Volume:
    """Two ball kidneys (right larger), a tumour in the left one, a cyst in the right one; label scheme kits."""
    grid = spl_grid(shape, (spacing_mm,) * 3)
    array = np.zeros(shape, np.uint8)
    array[ball(grid, (60, 0, 0), 30)] = 1
    array[ball(grid, (-60, 0, 0), 26)] = 1
    array[ball(grid, (-60, 20, 0), 14)] = 2
    array[ball(grid, (60, -20, 8), 9)] = 3
    return Volume.on(grid, array, "kidneys")


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (0.7, 0.6, 0.9)])
@pytest.mark.parametrize("offset", [0.0, 0.31])
def test_a_sphere_has_its_own_volume_and_diameter(spacing_mm: tuple[float, float, float], offset: float) -> None:
    radius = 12.0
    shape = tuple(int(np.ceil(2 * radius / s)) + 5 for s in spacing_mm)
    grid = spl_grid(shape, spacing_mm)  # type: ignore[arg-type]
    mask = ball(grid, tuple(offset * s for s in spacing_mm), radius)  # type: ignore[arg-type]
    size = diameters(mask, grid)
    half_voxel = 0.5 * max(spacing_mm[1:])
    assert size.long_mm == pytest.approx(2 * radius, abs=half_voxel + 0.05)
    assert size.short_mm == pytest.approx(2 * radius, abs=2 * half_voxel)
    assert size.any_direction_mm == pytest.approx(2 * radius, abs=max(spacing_mm))
    volume = measure(Volume.on(grid, mask * np.uint8(2)), LITS)["lesions"][0]
    assert volume["volume_ml"] == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.03)
    assert volume["equivalent_sphere_mm"] == pytest.approx(2 * radius, rel=0.01)


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 133])
def test_an_ellipse_has_two_axes_whatever_its_angle(degrees: int) -> None:
    grid = spl_grid((3, 90, 90), (2.0, 0.7, 0.7))
    x, y = world_of(grid)[..., 0], world_of(grid)[..., 1]
    angle = np.deg2rad(degrees)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    mask = (u / 24) ** 2 + (v / 11) ** 2 <= 1
    size = diameters(mask, grid)
    assert size.long_mm == pytest.approx(48, abs=0.7)
    assert size.short_mm == pytest.approx(22, abs=0.7)
    along = np.diff(size.long_points_mm, axis=0)[0]
    across = np.diff(size.short_points_mm, axis=0)[0]
    assert np.linalg.norm(along) == pytest.approx(size.long_mm)
    assert np.linalg.norm(across) == pytest.approx(size.short_mm)
    assert along @ across == pytest.approx(0, abs=1e-6)
    assert abs(along[0]) == pytest.approx(48 * abs(np.cos(angle)), abs=5)


def test_a_box_is_as_long_as_its_diagonal() -> None:
    grid = spl_grid((5, 40, 40), (1.0, 1.0, 1.0))
    mask = np.zeros(grid.shape, bool)
    mask[1:4, 5:17, 10:15] = True
    size = diameters(mask, grid)
    assert size.long_mm == pytest.approx(13.0, abs=1.0)  # 5 x 12 x 13, edge to edge
    assert size.short_mm <= size.long_mm


def test_the_widest_slice_is_found() -> None:
    grid = spl_grid((9, 30, 30), (5.0, 1.0, 1.0))
    mask = np.zeros(grid.shape, bool)
    mask[:, 10:14, 10:14] = True
    mask[6, 12, 3:25] = True
    size = diameters(mask, grid)
    assert size.slice_index == 6
    assert size.long_mm == pytest.approx(21.5)
    assert grid.index(size.long_points_mm)[:, 0] == pytest.approx([6, 6])


def test_one_voxel_and_one_line_have_sizes_too() -> None:
    grid = spl_grid((1, 9, 9), (5.0, 2.0, 2.0))
    mask = np.zeros(grid.shape, bool)
    mask[0, 4, 4] = True
    assert diameters(mask, grid).long_mm == pytest.approx(1.0)
    mask[0, 4, 2:8] = True
    assert diameters(mask, grid).long_mm == pytest.approx(11.0)


def test_a_sheared_slice_is_measured_in_millimetres() -> None:
    affine = np.array([[0, 0, -1.0, 0], [0, -1.0, -0.5, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    grid = Grid((1, 80, 80), affine)
    centre = grid.world([0, 39.5, 39.5])
    mask = ((world_of(grid) - centre) ** 2).sum(axis=-1) <= 15.0**2
    size = diameters(mask, grid)
    assert size.long_mm == pytest.approx(30, abs=0.7)
    assert np.ptp(size.long_points_mm, axis=0) @ np.ptp(size.long_points_mm, axis=0) == pytest.approx(size.long_mm**2)


def test_sides_are_the_patients() -> None:
    table = measure(kidneys(), KITS)
    assert [(x["name"], x["side"]) for x in table["organs"]] == [("kidney", "right"), ("kidney", "left")]
    right, left = table["organs"]
    assert right["centroid_mm"][0] > 0 > left["centroid_mm"][0]
    assert [(x["id"], x["kind"], x["side"]) for x in table["lesions"]] == [(1, "cyst", "right"), (2, "tumour", "left")]
    assert right["lesion_ids"] == [1] and left["lesion_ids"] == [2]
    assert table["volumes_by_side_ml"]["tumour"]["right"] == 0
    assert table["volumes_by_side_ml"]["kidney"]["right"] + table["volumes_by_side_ml"]["kidney"]["left"] == (
        pytest.approx(table["volumes_ml"]["kidney"], abs=1e-3)
    )
    assert right["volume_ml"] == pytest.approx(right["parenchyma_ml"] + right["lesions_ml"], abs=1e-3)
    assert table["warnings"] == []


@cache
def measured_kidneys() -> tuple[Volume, Volume, dict[str, Any]]:
    """Labels, a scan, and what is measured of them: once for all orders of axes."""
    plain = kidneys()
    scan = plain.with_array(np.where(plain.array > 0, 40, -1000).astype(np.int16))
    return plain, scan, measure(plain, KITS, scan)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    axes=st.permutations([("R", "L"), ("A", "P"), ("S", "I")]),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_axis_order_changes_no_number(axes: list[tuple[str, str]], flips: tuple[bool, bool, bool]) -> None:
    codes = "".join(pair[flip] for pair, flip in zip(axes, flips, strict=True))
    plain, scan, table = measured_kidneys()
    turned = plain.oriented(codes)
    turned = turned.with_array(np.ascontiguousarray(turned.array))
    assert measure(turned, KITS, scan.oriented(codes)) == table


def test_an_oblique_scan_keeps_its_sides_and_sizes() -> None:
    plain = kidneys()
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    table, turned = measure(plain, KITS), measure(Volume(plain.array, turn @ plain.affine), KITS)
    for before, after in zip(table["lesions"], turned["lesions"], strict=True):
        assert after["side"] == before["side"]
        assert after["long_axis_mm"] == pytest.approx(before["long_axis_mm"], abs=1e-3)
        assert after["volume_ml"] == pytest.approx(before["volume_ml"], abs=1e-3)


def test_one_kidney_alone_is_placed_by_the_image_or_the_body() -> None:
    both = kidneys()
    one = both.with_array(np.where(world_of(both.grid)[..., 0] < 0, both.array, 0).astype(np.uint8))
    assert [x["side"] for x in measure(one, KITS)["organs"]] == ["left"]
    # a body that lies mostly on the patient's left of that kidney: now it is the right one
    body = np.where(world_of(both.grid)[..., 0] < -50, 30, -1000).astype(np.int16)
    scan = both.with_array(body)
    assert body_mid_x_mm(scan, (0, 24)) == pytest.approx(-84, abs=4)
    assert [x["side"] for x in measure(one, KITS, scan)["organs"]] == ["right"]


def test_two_kidneys_in_an_off_centre_crop_are_told_apart_by_each_other() -> None:
    both = kidneys()
    cut = both.cropped((0, 0, 6), (24, 40, 60))
    shifted = Volume(np.pad(cut.array, ((0, 0), (0, 0), (0, 200))), cut.affine)
    assert [x["side"] for x in measure(shifted, KITS)["organs"]] == ["right", "left"]


def test_a_horseshoe_kidney_is_cut_and_said() -> None:
    both = kidneys()
    array = both.array.copy()
    array[11:13, 18:21, 14:46] = np.maximum(array[11:13, 18:21, 14:46], 1)
    table = measure(both.with_array(array), KITS)
    assert [x["side"] for x in table["organs"]] == ["right", "left"]
    assert any("horseshoe" in warning for warning in table["warnings"])
    assert table["organs"][0]["volume_ml"] == pytest.approx(measure(both, KITS)["organs"][0]["volume_ml"], rel=0.1)


def test_a_tumour_across_the_mid_plane_stays_with_its_kidney() -> None:
    both = kidneys()
    array = both.array.copy()
    array[ball(both.grid, (-20, 0, 0), 26) & (array == 0)] = 2
    table = measure(both.with_array(array), KITS)
    assert {x["side"] for x in table["lesions"] if x["kind"] == "tumour"} == {"left"}
    assert table["volumes_by_side_ml"]["tumour"]["right"] == 0
    assert not any("horseshoe" in warning for warning in table["warnings"])


def test_lesions_go_with_the_sided_label_that_they_touch() -> None:
    scheme = LabelScheme(
        "sided",
        (
            Label(1, "right kidney", "organ", "kidney", "right"),
            Label(2, "left kidney", "organ", "kidney", "left"),
            Label(3, "tumour", "tumour", "kidney"),
        ),
        (Region("tumour", (3,)),),
    )
    grid = spl_grid((16, 24, 40), (4.0, 4.0, 4.0))
    array = np.zeros(grid.shape, np.uint8)
    array[ball(grid, (44, 0, 0), 20)] = 1
    array[ball(grid, (-44, 0, 0), 20)] = 2
    array[ball(grid, (10, 0, 0), 20) & (array == 0)] = 3  # touches the right one, reaches over the middle
    array[ball(grid, (-30, 40, 0), 7)] = 3  # touches nothing, lies on the left
    table = measure(Volume.on(grid, array), scheme)
    assert [(x["id"], x["side"]) for x in table["lesions"]] == [(1, "right"), (2, "left")]
    assert table["organs"][0]["volume_ml"] > table["organs"][0]["parenchyma_ml"]


def test_lesions_are_numbered_by_organ_side_and_volume() -> None:
    grid = spl_grid((20, 30, 60), (4.0, 4.0, 4.0))
    array = np.zeros(grid.shape, np.uint8)
    for x in (60, -60):
        array[ball(grid, (x, 0, 0), 30)] = 1
        array[ball(grid, (x, 12, 12), 8)] = 2
        array[ball(grid, (x, -12, -12), 13)] = 2
    array[10, 15, 15] = 3  # a speck: in the volumes, not in the list
    table = measure(Volume.on(grid, array), KITS)
    sides = [x["side"] for x in table["lesions"]]
    volumes = [x["volume_ml"] for x in table["lesions"]]
    assert sides == ["right", "right", "left", "left"]
    assert volumes[0] > volumes[1] and volumes[2] > volumes[3]
    assert [x["id"] for x in table["lesions"]] == [1, 2, 3, 4] and table["lesion_count"] == 4
    assert table["volumes_ml"]["cyst"] == pytest.approx(0.064)
    assert any("1 speck of cyst" in warning for warning in table["warnings"])


def test_what_touches_the_border_is_at_least_that_large() -> None:
    whole = kidneys()
    cut = whole.cropped((12, 0, 0), (24, 40, 60))
    assert not any(x["cut_by_field_of_view"] for x in measure(whole, KITS)["organs"])
    table = measure(cut, KITS)
    assert all(x["cut_by_field_of_view"] for x in table["organs"])
    assert sum("at least" in warning for warning in table["warnings"]) == 2


def test_density_is_that_of_the_scan_under_the_label() -> None:
    labels = kidneys()
    scan = labels.with_array(np.select([labels.array == n for n in (1, 2, 3)], [30, 45, 5], -90).astype(np.int16))
    table = measure(labels, KITS, scan)
    by_kind = {x["kind"]: x["hu_mean"] for x in table["lesions"]}
    assert by_kind == {"tumour": 45.0, "cyst": 5.0}
    assert {x["hu_mean"] for x in table["organs"]} == {30.0} and table["organs"][0]["hu_sd"] == 0.0
    assert measure(labels, KITS)["lesions"][0]["hu_mean"] is None


def test_faults_of_the_files_are_refused() -> None:
    labels = kidneys()
    with pytest.raises(LabelError):
        measure(labels.with_array(labels.array + np.uint8(9)), KITS)
    moved = np.array(labels.affine)
    moved[0, 3] += 5
    with pytest.raises(GeometryError):
        measure(labels, KITS, Volume(np.zeros(labels.shape, np.int16), moved))


def test_an_empty_map_has_zeros_and_says_so() -> None:
    labels = kidneys()
    table = measure(labels.with_array(np.zeros(labels.shape, np.uint8)), KITS)
    assert table["organs"] == table["lesions"] == [] and table["volumes_ml"]["kidney"] == 0
    assert "empty" in table["warnings"][0]
    assert summary_row("x", table)["lesions"] == 0


def test_files_hold_what_was_measured(tmp_path: Path) -> None:
    table = measure(kidneys(), KITS)
    write_measurements(tmp_path / "a" / "measurements.json", table)
    assert json.loads((tmp_path / "a" / "measurements.json").read_text(encoding="utf-8")) == table
    row = summary_row("case_1", table)
    assert tuple(row) == SUMMARY_FIELDS
    assert row["largest_lesion_side"] == "left" and row["tumours"] == 1 and row["cysts"] == 1
    empty = measure(Volume(np.zeros((3, 3, 3), np.uint8), np.eye(4)), KITS)
    write_summary(tmp_path / "summary.csv", {"case_1": table, "case,2": empty})
    with open(tmp_path / "summary.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [x["case"] for x in rows] == ["case_1", "case,2"]
    assert float(rows[0]["right_kidney_ml"]) == table["organs"][0]["volume_ml"] and rows[1]["right_kidney_ml"] == ""


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=5), st.permutations([0, 1, 2]))
@settings(max_examples=30, deadline=None)
def test_the_bounding_box_holds_all_and_no_more(points: list[tuple[int, int, int]], axes: list[int]) -> None:
    array = np.zeros((7, 7, 7), np.uint8)
    for point in points:
        array[point] = 1
    box = bounding_box(array.transpose(axes))
    if not points:
        assert box is None
        return
    assert box is not None
    where = np.argwhere(array.transpose(axes))
    assert [part.start for part in box] == where.min(axis=0).tolist()
    assert [part.stop - 1 for part in box] == where.max(axis=0).tolist()


def test_real_organs_have_their_sides_and_volumes() -> None:
    folder = SHARED / "real" / "totalsegmentator_ct"
    if not folder.is_dir():
        pytest.skip("shared/data is absent: real CT")
    volumes = []
    for name in ("labels", "ct"):
        image = nib.load(folder / f"{name}.nii.gz")  # type: ignore[attr-defined]
        volumes.append(Volume(np.asarray(image.dataobj), image.affine, name))
    table = measure(volumes[0], ABDOMEN, volumes[1])
    found = {f"{x['side']} {x['name']}".strip(): x["volume_ml"] for x in table["organs"]}
    assert found == pytest.approx({"right kidney": 193, "left kidney": 137, "liver": 1126, "spleen": 261}, abs=0.6)
    # the same kidneys under one label, told apart by the body's mid-plane
    merged = volumes[0].with_array(np.isin(volumes[0].array, (1, 2)).astype(np.uint8))
    by_side = {x["side"]: x["volume_ml"] for x in measure(merged, KITS, volumes[1])["organs"]}
    assert by_side == pytest.approx({"right": 193, "left": 137}, abs=0.6)


def test_real_tumours_are_as_long_as_radiologists_say() -> None:
    folder, clinical = SHARED / "kits23_labels", SHARED / "kits23_clinical.json"
    if not folder.is_dir() or not clinical.is_file():
        pytest.skip("shared/data is absent: KiTS23 labels")
    told = {x["case_id"]: 10 * (x["radiographic_size"] or 0) for x in json.loads(clinical.read_text())}
    differences = []
    for case in ("case_00010", "case_00011", "case_00038", "case_00048", "case_00061"):
        image = nib.load(folder / f"{case}.nii.gz")  # type: ignore[attr-defined]
        table = measure(Volume(np.asarray(image.dataobj), image.affine, case), KITS)
        assert {x["side"] for x in table["organs"]} == {"left", "right"}
        longest = max(x["long_axis_mm"] for x in table["lesions"] if x["kind"] == "tumour")
        differences.append(longest - told[case])
    assert abs(float(np.median(differences))) < 5
