"""The kidney's outline without its mass: balls in the border of ellipsoids, with and without a skin of tissue."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.labels import SCHEMES
from hilum.results.contour import RIM_MM, contour_of, rims_of
from hilum.results.measure import measure
from hilum.volume import Grid, Volume
from making_shapes import ball, ellipsoid, grid_around, rotation

KIDNEY_MM = (30.0, 24.0, 52.0)


def exophytic(grid: Grid, centre_mm: tuple[float, float, float], radius_mm: float, skin_mm: float) -> tuple[float, ...]:
    """The share outside the ellipsoid, as it is and as it is measured, of a ball with a skin of parenchyma."""
    kidney, lesion = ellipsoid(grid, (0, 0, 0), KIDNEY_MM), ball(grid, centre_mm, radius_mm)
    skin = ball(grid, centre_mm, radius_mm + skin_mm) if skin_mm else np.zeros_like(kidney)
    array = np.where(lesion, 2, np.where(kidney | skin, 1, 0)).astype(np.uint8)
    (entry,) = measure(Volume.on(grid, array), SCHEMES["kits"])["lesions"]
    points = entry["renal"]["nephrometry"]["e"]["points"] if entry["attached"] else 0
    return 100 * (lesion & ~kidney).sum() / lesion.sum(), entry["exophytic_percent"], points


@pytest.mark.parametrize("skin_mm", [0.0, 2.0, 4.0])
@pytest.mark.parametrize("spacing_mm", [(1.6, 1.6, 1.6), (5.0, 1.0, 1.0)], ids=["isotropic", "thick"])
def test_half_a_ball_stands_out_whatever_skin_it_wears(spacing_mm: tuple[float, float, float], skin_mm: float) -> None:
    grid = grid_around((112, 56, 112), spacing_mm)
    for centre_mm in ((28.5, 0.0, 0.0), (20.0, 0.0, 38.0)):
        exact, found, points = exophytic(grid, centre_mm, 14.0, skin_mm)
        assert 48 <= exact <= 60
        assert exact - 8 <= found <= exact + 13  # a rim leaves a little, and the bed is spanned flat
        assert points == (1 if found >= 50 else 2)


def test_oblique_grids_tell_the_same() -> None:
    plain, turned = (
        exophytic(grid_around((112, 60, 112), (2.0, 2.0, 2.0), turn), (27.0, 0.0, 6.0), 14.0, 2.5)
        for turn in (None, rotation(25, (1, 0.5, 0)))
    )
    assert turned[1] == pytest.approx(plain[1], abs=4)


@pytest.mark.parametrize("cover_mm", [2.0, 5.0])
def test_nothing_stands_out_of_what_lies_wholly_inside(cover_mm: float) -> None:
    grid = grid_around((112, 56, 70), (1.6, 1.6, 1.6))
    exact, found, points = exophytic(grid, (KIDNEY_MM[0] - cover_mm - 11.0, 0.0, 0.0), 11.0, 0.0)
    assert exact == 0 and found < 1 and points == 3


def test_all_of_what_hangs_outside_stands_out() -> None:
    grid = grid_around((112, 56, 130), (1.6, 1.6, 1.6))
    for skin_mm in (0.0, 2.0):
        exact, found, _ = exophytic(grid, (KIDNEY_MM[0] + 13.2, 0.0, 0.0), 13.0, skin_mm)
        assert exact == 100 and found > 97


def test_rims_are_thin_and_near() -> None:
    """A plate of tissue over a lesion: a rim below 6 mm; the same plate far from it: none."""
    grid = Grid((40, 40, 60), np.diag([1.0, 1.0, 1.0, 1.0]))
    lesion = np.zeros(grid.shape, bool)
    lesion[15:25, 15:25, 10:20] = True
    for thick, rim in ((int(2 * RIM_MM) - 1, True), (int(2 * RIM_MM) + 2, False)):
        own = np.zeros(grid.shape, bool)
        own[:, :, 20 : 20 + thick] = True
        own[:, :, 50:53] = True
        rims = rims_of(own, lesion, grid)
        assert rims[20, 20, 20] == rim and not rims[:, :, 50:].any() and not (rims & ~own).any()
    assert not rims_of(own, np.zeros_like(lesion), grid).any()


def test_a_kidney_that_is_all_rim_keeps_its_outline() -> None:
    grid = grid_around((70, 70, 70), (2.0, 2.0, 2.0))
    lesion = ball(grid, (0, 0, 0), 26)
    own = ball(grid, (0, 0, 0), 29) & ~lesion
    contour = contour_of(own, lesion, grid)
    assert not (own & ~contour).any() and not (lesion & ~contour).any()
