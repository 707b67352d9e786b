"""Renal scores against worked numbers; and every reason for having none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hilum.labels import SCHEMES, Label, LabelScheme, Region
from hilum.results.measure import measure
from hilum.results.renal import DEFINITIONS, t_stage_by_size
from hilum.volume import Volume
from making_shapes import ball, ellipsoid, grid_around, rotation

KITS = SCHEMES["kits"]
SINUS = LabelScheme(
    "sinus",
    (
        Label(1, "kidney", "organ", "kidney", paired=True),
        Label(2, "tumour", "tumour", "kidney"),
        Label(4, "renal sinus", "other", "kidney"),
    ),
    (Region("tumour", (2,)),),
)


def one_kidney(
    lesion_mm: tuple[float, float, float],
    radius_mm: float,
    spacing_mm: tuple[float, float, float] = (1.5, 1.2, 1.2),
    turn: np.ndarray | None = None,
    sinus: bool = False,
) -> Volume:
    """A large solid kidney around world 0, a tumour, and a labelled sinus of 10 mm radius if asked."""
    grid = grid_around((120, 84, 84), spacing_mm, turn)
    array = np.zeros(grid.shape, np.uint8)
    array[ellipsoid(grid, (0, 0, 0), (34, 34, 54))] = 1
    if sinus:
        array[ball(grid, (-12, 0, 0), 10)] = 4
    array[ball(grid, lesion_mm, radius_mm)] = 2
    return Volume.on(grid, array)


def scores(volume: Volume, scheme: LabelScheme = KITS, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = measure(volume, scheme, **options)["lesions"][0]["renal"]
    return found


@pytest.mark.parametrize("turn", [None, rotation(18, (1, 0.4, 0))], ids=["straight", "oblique"])
@pytest.mark.parametrize(("place", "radius"), [((14.0, 5.0, 20.0), 13.0), ((0.0, 12.0, -18.0), 16.0)])
def test_the_c_index_of_a_ball_in_an_ellipsoid_is_exact(
    place: tuple[float, float, float], radius: float, turn: np.ndarray | None
) -> None:
    exact = np.linalg.norm(place) / radius
    found = scores(one_kidney(place, radius, (1.0, 0.8, 0.8), turn))["c_index"]
    assert found["value"] == pytest.approx(exact, rel=0.03)
    assert found["distance_mm"] == pytest.approx(np.linalg.norm(place), rel=0.01)
    assert found["not_computable"] is None


@pytest.mark.parametrize(
    ("gap", "points"), [(9.0, 1), (5.5, 2), (2.0, 3), (0.0, 3)], ids=["far", "near", "nearer", "touching"]
)
def test_nearness_is_the_gap_to_a_segmented_sinus(gap: float, points: int) -> None:
    found = scores(one_kidney((8.0 + gap, 0, 0), 10.0, sinus=True), SINUS)
    near = found["nephrometry"]["n"]
    assert near["value"] == pytest.approx(gap, abs=1.5) and near["basis"] == "segmented sinus"
    assert near["low"] == near["high"] == near["value"]
    if abs(near["value"] - 4) > 0.5 and abs(near["value"] - 7) > 0.5:
        assert near["points"] == points
    assert found["padua"]["sinus"]["points"] == (2 if near["value"] == 0 else 1)


def test_the_parts_add_up() -> None:
    found = scores(one_kidney((20.0, 0, 0), 10.0, sinus=True), SINUS)
    parts = found["nephrometry"]
    assert parts["r"] == {"value": pytest.approx(2.0, abs=0.1), "points": 1, "not_computable": None}
    assert parts["e"]["points"] == 3 and parts["e"]["value"] < 5
    assert parts["l"]["points"] == 3 and parts["l"]["basis"] == "sinus"
    total = sum(parts[key]["points"] for key in "renl")
    assert parts["total"]["value"] == total
    assert parts["total"]["text"] == f"{total}{parts['a']['value']}"
    assert parts["total"]["complexity"] == ("low" if total <= 6 else "moderate" if total <= 9 else "high")
    padua = found["padua"]
    told = [padua[key]["points"] for key in ("longitudinal", "exophytic", "rim", "sinus", "size")]
    assert padua["total"]["value"] is None and "collecting system" in padua["total"]["not_computable"]
    assert (padua["total"]["low"], padua["total"]["high"]) == (sum(told) + 1, sum(told) + 2)


def test_a_tumour_beyond_the_polar_line_has_one_point() -> None:
    found = scores(one_kidney((0.0, 0, 44.0), 9.0, sinus=True), SINUS)["nephrometry"]["l"]
    assert found["value"] == "beyond a polar line" and found["points"] == 1
    crossing = scores(one_kidney((14.0, 0, 14.0), 10.0, sinus=True), SINUS)["nephrometry"]["l"]
    assert crossing["value"] == "crosses a polar line" and crossing["points"] == 2


@pytest.mark.parametrize(("radius", "points"), [(14.0, 1), (25.0, 2), (37.0, 3)])
def test_size_has_its_points(radius: float, points: int) -> None:
    found = scores(one_kidney((0.0, 0, 0), radius))["nephrometry"]["r"]
    assert found["value"] == pytest.approx(radius / 5, rel=0.03) and found["points"] == points


def test_without_a_sinus_the_total_is_a_range() -> None:
    found = scores(one_kidney((14.0, 0, 0), 12.0))
    parts = found["nephrometry"]
    assert parts["n"]["value"] is None and parts["n"]["not_computable"].startswith("because no sinus")
    assert parts["total"]["value"] is None and parts["total"]["high"] - parts["total"]["low"] == 2
    assert parts["l"]["basis"] == "thirds"
    assert found["padua"]["sinus"]["value"] is None and found["c_index"]["value"] is not None


def test_a_tumour_off_its_kidney_has_no_scores_but_reasons() -> None:
    grid = grid_around((120, 84, 160), (3.0, 2.0, 2.0))
    array = np.zeros(grid.shape, np.uint8)
    array[ellipsoid(grid, (35, 0, 0), (24, 24, 44))] = 1
    array[ball(grid, (35, 30, 45), 6)] = 2
    table = measure(Volume.on(grid, array), KITS)
    renal = table["lesions"][0]["renal"]
    reasons = [x["not_computable"] for x in (*renal["nephrometry"].values(), *renal["padua"].values())]
    assert set(reasons) == {"because the tumour does not touch its kidney"}
    assert renal["c_index"]["value"] is None and renal["resection"]["value"] is None


def test_the_resected_volume_is_tumour_and_shell() -> None:
    volume = one_kidney((10.0, 0, 0), 12.0, (1.0, 1.0, 1.0))
    found = scores(volume, margin_mm=5.0)["resection"]
    assert found["value"] == pytest.approx(4 / 3 * np.pi * 17**3 / 1000, rel=0.03)
    assert found["healthy_ml"] == pytest.approx(4 / 3 * np.pi * (17**3 - 12**3) / 1000, rel=0.04)
    kidney_ml = 4 / 3 * np.pi * (34 * 34 * 54 - 12**3) / 1000
    assert found["remaining_parenchyma_percent"] == pytest.approx(100 * (1 - found["healthy_ml"] / kidney_ml), abs=0.3)
    more = scores(volume, margin_mm=10.0)["resection"]
    assert more["healthy_ml"] > 2 * found["healthy_ml"] and more["margin_mm"] == 10


@pytest.mark.parametrize(
    ("mm", "stage"), [(40.0, "T1a"), (40.1, "T1b"), (70.0, "T1b"), (70.1, "T2a"), (100.0, "T2a"), (101.0, "T2b")]
)
def test_t_stage_by_size(mm: float, stage: str) -> None:
    assert t_stage_by_size(mm) == {"value": stage, "size_only": True, "not_computable": None}


def leaves(value: Any) -> list[dict[str, Any]]:
    """All tables that say whether they could be computed."""
    if not isinstance(value, dict):
        return []
    inner = [leaf for item in value.values() for leaf in leaves(item)]
    return [value, *inner] if "not_computable" in value else inner


@pytest.mark.parametrize("place", [(14.0, 0.0, 0.0), (30.0, 20.0, 40.0), (200.0, 0.0, 0.0)])
def test_each_value_is_there_or_says_why_not_and_has_its_source(place: tuple[float, float, float]) -> None:
    table = measure(one_kidney(place, 9.0), KITS)
    for lesion in table["lesions"]:
        found = leaves(lesion["renal"])
        assert len(found) == 6 + 8 + 2
        assert all((x["value"] is None) == (x["not_computable"] or "").startswith("because ") for x in found)
        for key in lesion["renal"]:
            names = [name for name in table["definitions"] if name.split(".")[0] == key]
            assert names and all(set(table["definitions"][name]) == {"formula", "source"} for name in names)
    assert set(table["definitions"]) == (set(DEFINITIONS) if table["lesions"] else set())


def test_of_a_cut_kidney_no_poles_and_no_centre_are_told() -> None:
    """The same kidney, whole and with its lower end beyond the scan."""
    whole = one_kidney((30.0, 0.0, 10.0), 12.0, sinus=True)
    low = int(np.flatnonzero((whole.array > 0).any(axis=(1, 2)))[0]) + 12
    cut = whole.cropped([low, 0, 0], whole.shape)
    (entry,) = measure(cut, SINUS)["lesions"]
    found, before = entry["renal"], scores(whole, SINUS)
    because = "because the edge of the scan cuts the kidney"
    assert (
        entry["pole"] is None
        and found["c_index"]["not_computable"] == because == found["nephrometry"]["l"]["not_computable"]
    )
    assert found["padua"]["longitudinal"]["not_computable"] == because
    total, once = found["nephrometry"]["total"], before["nephrometry"]["total"]["value"]
    assert total["value"] is None and total["not_computable"] == "because L is missing"
    assert total["low"] <= once <= total["high"] == total["low"] + 2
    assert found["padua"]["total"]["high"] == before["padua"]["total"]["high"] + (
        before["padua"]["longitudinal"]["points"] == 1
    )
    assert found["resection"]["remaining_parenchyma_percent"] is None
    assert found["resection"]["value"] == pytest.approx(before["resection"]["value"])
