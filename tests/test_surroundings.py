"""Lesions in organs whose geometry is known: contact, depth, what stands out, poles, satellites."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.labels import SCHEMES
from hilum.results.distances import border_of, gap_mm, within
from hilum.results.measure import measure
from hilum.volume import Grid, Volume
from making_shapes import ball, ellipsoid, grid_around, rotation

KITS, LITS = SCHEMES["kits"], SCHEMES["lits"]


def map_of(grid: Grid, *masks: tuple[int, np.ndarray]) -> Volume:
    """Later masks lie over earlier ones."""
    array = np.zeros(grid.shape, np.uint8)
    for value, mask in masks:
        array[mask] = value
    return Volume.on(grid, array)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.6, 0.8, 0.8), (2.5, 0.8, 0.8)])
@pytest.mark.parametrize("turn", [None, rotation(20, (1, 1, 0))], ids=["straight", "oblique"])
@pytest.mark.parametrize("offset_mm", [34.0, 24.0, 8.0])
def test_the_contact_area_of_a_ball_in_a_ball_is_exact(
    spacing_mm: tuple[float, float, float], turn: np.ndarray | None, offset_mm: float
) -> None:
    """Two balls of radius R and r at distance d: the cap of the small one inside the large one is 2 pi r h."""
    big, small = 30.0, 18.0
    grid = grid_around((68, 68, 104), spacing_mm, turn)
    organ = ball(grid, (0.1, -0.2, 0.3), big)
    lesion = ball(grid, (0.1 + offset_mm, -0.2, 0.3), small)
    entry = measure(map_of(grid, (1, organ), (2, lesion)), LITS)["lesions"][0]
    toward = (offset_mm**2 + small**2 - big**2) / (2 * offset_mm)  # the circle of contact, from the small one's centre
    exact = 2 * np.pi * small * min(2 * small, max(0.0, small - toward))
    assert entry["contact_area_cm2"] == pytest.approx(exact / 100, rel=0.03)
    free = 100 * (1 - exact / (4 * np.pi * small**2))
    assert entry["free_surface_percent"] == pytest.approx(free, abs=2)
    depth = max(0.0, big - offset_mm - small)
    assert entry["distance_to_surface_mm"] == pytest.approx(depth, abs=max(spacing_mm))
    assert entry["attached"] is True and entry["exophytic_percent"] is None and entry["renal"] is None


def kidney_map(turn: np.ndarray | None = None, lesion_mm: tuple[float, float, float] = (58.0, 0.0, 40.0)) -> Volume:
    """Two upright kidneys with a bite for the hilum; a tumour of 10 mm radius on the patient's right."""
    grid = grid_around((130, 70, 170), (2.0, 1.5, 1.5), turn)
    masks = []
    for x in (50.0, -50.0):
        kidney = ellipsoid(grid, (x, 0, 0), (26, 20, 52))
        masks.append((1, kidney & ~ellipsoid(grid, (x - 20 * np.sign(x), 0, 0), (14, 12, 20))))
    return map_of(grid, *masks, (2, ball(grid, lesion_mm, 10)))


def test_the_sinus_is_found_where_the_bite_is() -> None:
    table = measure(kidney_map(), KITS)
    right, left = table["organs"]
    for organ, x in ((right, 50.0), (left, -50.0)):
        assert organ["sinus"]["source"] == "estimated"
        assert organ["sinus"]["centroid_mm"] == pytest.approx([x - 14 * np.sign(x), 0, 0], abs=5)
        assert 3 < organ["sinus"]["volume_ml"] < 8  # the bite within the kidney is 6.9 mL, its mouth is left open
    assert left["length_mm"] == pytest.approx(104, abs=3.1)  # an end may miss a slice
    assert left["width_mm"] > left["thickness_mm"] == pytest.approx(40, abs=2)
    assert table["split_function"]["right_percent"] < 50 < table["split_function"]["left_percent"]


@pytest.mark.parametrize(
    ("lesion_mm", "pole", "face", "rim"),
    [
        ((55.0, 0.0, 40.0), "upper", "both", "lateral"),
        ((55.0, 0.0, -42.0), "lower", "both", "lateral"),
        ((64.0, 16.0, 0.0), "middle", "anterior", "lateral"),
        ((40.0, -18.0, 2.0), "middle", "posterior", "medial"),
    ],
)
def test_lesions_lie_where_they_were_put(lesion_mm: tuple[float, float, float], pole: str, face: str, rim: str) -> None:
    entry = measure(kidney_map(lesion_mm=lesion_mm), KITS)["lesions"][0]
    assert (entry["pole"], entry["anterior_posterior"]) == (pole, face)
    assert entry["renal"]["padua"]["rim"]["value"] == rim
    assert entry["renal"]["nephrometry"]["a"]["value"] == {"both": "x", "anterior": "a", "posterior": "p"}[face]


def test_what_stands_out_is_counted() -> None:
    """A ball on the border of a large flat kidney: the share beyond it is known."""
    grid = grid_around((150, 110, 100), (1.5, 1.5, 1.5))
    kidney = ellipsoid(grid, (-10, 0, 0), (36, 48, 70))
    for centre, low, high in ((26.0, 45, 65), (34.0, 85, 98), (14.0, 0, 0), (20.0, 5, 25)):
        lesion = ball(grid, (centre, 0, 0), 10)
        entry = measure(map_of(grid, (1, kidney), (2, lesion)), KITS)["lesions"][0]
        exact = 100 * (lesion & ~kidney).sum() / lesion.sum()
        assert low <= exact <= high
        assert entry["exophytic_percent"] == pytest.approx(exact, abs=6)


def test_gaps_are_the_space_between_voxels() -> None:
    grid = Grid((20, 20, 20), np.diag([2.0, 1.0, 0.5, 1.0]))
    one, other = np.zeros((2, *grid.shape), bool)
    one[5, 5, 5] = True
    other[5, 5, 6] = True
    assert gap_mm(border_of(one), border_of(other), grid) == 0
    other[:] = False
    other[9, 5, 5] = True
    assert gap_mm(border_of(one), border_of(other), grid) == pytest.approx(6.0)  # three voxels of 2 mm between
    assert gap_mm(border_of(one), np.zeros((0, 3)), grid) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(1.0, 1.0, 1.0), (5.0, 0.7, 0.8), (0.5, 3.0, 1.0)]))
def test_gaps_are_those_of_all_pairs_and_never_grow_with_a_set(
    seed: int, spacing_mm: tuple[float, float, float]
) -> None:
    draw = np.random.default_rng(seed)
    grid = Grid((9, 9, 9), np.diag([*spacing_mm, 1.0]))
    one, other = (draw.integers(0, 9, (n, 3)) for n in (3, 4))
    steps = np.maximum(np.abs(one[:, None] - other[None]) - 1, 0) * spacing_mm
    gap = gap_mm(one, other, grid)
    assert gap == pytest.approx(np.linalg.norm(steps, axis=2).min(), abs=1e-6)
    assert gap == pytest.approx(gap_mm(other, one, grid), abs=1e-6)
    wider = gap_mm(one, np.concatenate([other, draw.integers(0, 9, (3, 3))]), grid)
    assert wider is not None and gap is not None and wider <= gap + 1e-9


@pytest.mark.parametrize("shear", [0.0, 0.4])
def test_a_margin_around_a_ball_is_a_shell(shear: float) -> None:
    affine = np.array([[1.2, 0, 0, 0], [0, 1.0, 0, 0], [shear, 0, 1.0, 0], [0, 0, 0, 1.0]])
    grid = Grid((44, 50, 54), affine)
    centre = grid.world(np.array(grid.shape) / 2)
    mask = ball(grid, tuple(centre), 12.0)
    volume_mm3 = within(mask, grid, 5.0).sum() * grid.voxel_volume_mm3
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * 17**3, rel=0.05)
    assert not within(np.zeros_like(mask), grid, 5.0).any()


def test_satellites_are_small_and_near() -> None:
    grid = grid_around((60, 60, 100), (2.0, 2.0, 2.0))
    organ = ellipsoid(grid, (0, 0, 0), (48, 28, 28))
    lesions = [(-20.0, 12.0), (0.0, 3.0), (30.0, 6.0)]
    masks = [(2, ball(grid, (x, 0, 0), r)) for x, r in lesions]
    table = measure(map_of(grid, (1, organ), *masks), LITS)
    assert [x["satellite_ids"] for x in table["lesions"]] == [[3], [], []]


def test_a_lesion_outside_its_organ_is_told() -> None:
    grid = grid_around((60, 60, 120), (2.0, 2.0, 2.0))
    table = measure(map_of(grid, (1, ball(grid, (25, 0, 0), 20)), (2, ball(grid, (-40, 0, 0), 8))), LITS)
    (entry,) = table["lesions"]
    assert entry["attached"] is False and entry["contact_area_cm2"] == 0 and entry["free_surface_percent"] == 100
    assert any("Lesion 1 (tumour) does not touch the liver" in x for x in table["warnings"])
    # on its own side of the body there is no kidney at all: nothing to relate it to
    table = measure(map_of(grid, (1, ball(grid, (35, 0, 0), 20)), (2, ball(grid, (-40, 0, 0), 8))), KITS)
    (entry,) = table["lesions"]
    assert entry["attached"] is None and entry["pole"] is None
    assert entry["renal"]["c_index"]["not_computable"].startswith("because no parenchyma")
    assert any("no kidney itself" in x for x in table["warnings"])


def numbers(value: object) -> list[float]:
    """All numbers of a table, in its order, but those that name voxels or grids."""
    if isinstance(value, dict):
        skip = ("grid", "slice_index", "id", "format")
        return [n for key, item in value.items() if key not in skip for n in numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


@cache
def small_table() -> dict[str, Any]:
    """What is measured of ``SMALL``: once for all examples."""
    return measure(SMALL, KITS)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.permutations([("R", "L"), ("A", "P"), ("S", "I")]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.tuples(*[st.integers(0, 1)] * 6),
)
def test_axes_flips_and_cropping_change_no_number(
    axes: list[tuple[str, str]], flips: tuple[bool, ...], cut: tuple[int, ...]
) -> None:
    plain = SMALL
    codes = "".join(pair[flip] for pair, flip in zip(axes, flips, strict=True))
    turned = plain.oriented(codes)
    one = small_table()
    assert measure(turned.with_array(np.ascontiguousarray(turned.array)), KITS) == one
    cropped = plain.cropped(cut[:3], [n - c for n, c in zip(plain.shape, cut[3:], strict=True)])
    other = measure(cropped, KITS)
    assert numbers(other) == pytest.approx(numbers(one), abs=2e-4)
    assert [x["renal"] and x["renal"]["nephrometry"]["total"]["text"] for x in one["lesions"]] == [
        x["renal"] and x["renal"]["nephrometry"]["total"]["text"] for x in other["lesions"]
    ]


SMALL_GRID = grid_around((60, 40, 80), (4.0, 2.0, 2.0), rotation(12, (1, 0, 0.3)))
SMALL = map_of(
    SMALL_GRID,
    (1, ellipsoid(SMALL_GRID, (24, 0, 0), (13, 12, 26)) & ~ball(SMALL_GRID, (13, 0, 0), 7)),
    (1, ellipsoid(SMALL_GRID, (-24, 0, 0), (13, 12, 26)) & ~ball(SMALL_GRID, (-13, 0, 0), 7)),
    (2, ball(SMALL_GRID, (30, 6, 14), 7)),
    (3, ball(SMALL_GRID, (-28, -6, -10), 5)),
)
