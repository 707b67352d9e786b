"""Opening and closing in millimetres: worked shapes, hosts, invariants, thick slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hilum.errors import RecipeError
from hilum.inference.postprocess import apply
from hilum.labels import SCHEMES
from hilum.volume import Volume

KITS, LITS = SCHEMES["kits"], SCHEMES["lits"]


def on(array: np.ndarray, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    d, h, w = spacing_mm
    affine = np.array([[0, 0, -w, 0], [0, -h, 0, 0], [d, 0, 0, 0], [0, 0, 0, 1.0]])
    return Volume(array.astype(np.uint8), affine)


def run(volume: Volume, step: str, scheme=LITS, **options):
    return apply(volume, scheme, [{"step": step, **options}])


def ball(radius: float, spacing_mm: tuple[float, ...]) -> np.ndarray:
    reach = [int(radius / s) for s in spacing_mm]
    z, y, x = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    return (z * spacing_mm[0]) ** 2 + (y * spacing_mm[1]) ** 2 + (x * spacing_mm[2]) ** 2 <= radius**2


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), spacing=st.sampled_from([(1.0, 1.0, 1.0), (5.0, 0.8, 0.8), (1.0, 2.0, 1.5)]))
@pytest.mark.parametrize("step", ["opening", "closing"])
def test_it_is_what_scipy_does_with_a_ball_in_millimetres(step: str, seed: int, spacing) -> None:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(12, 16, 17)), 1.2)
    array = np.zeros((20, 26, 27), np.uint8)
    array[4:-4, 5:-5, 5:-5] = field > 0.05
    volume = on(array, spacing)
    found, _ = run(volume, step, radius_mm=2.1)
    wanted = getattr(ndimage, f"binary_{step}")(array, ball(2.1, spacing))
    assert np.array_equal(found.array, wanted.astype(np.uint8))
    again, records = run(found, step, radius_mm=2.1)
    assert np.array_equal(again.array, found.array) and not records


def test_a_bridge_goes_a_gap_is_filled_and_both_are_told() -> None:
    array = np.zeros((14, 30, 14), np.uint8)
    array[3:11, 2:11, 3:11] = array[3:11, 18:28, 3:11] = 1
    array[6, 11:18, 6] = 1  # a bridge one voxel thin
    found, records = run(on(array), "opening", radius_mm=1.2)
    assert not found.array[6, 12:17, 6].any() and found.array[6, 20:26, 6].all()
    assert [(record["step"], record["what"]) for record in records] == [("opening", "liver")]
    array[6, 11:18, 6] = 0
    array[5:9, 4:9, 6] = 0  # a slit
    assert run(on(array), "closing", radius_mm=1.2)[0].array[5:9, 4:9, 6].all()


def test_a_lesion_s_thin_parts_become_its_organ_and_organs_keep_their_lesions() -> None:
    array = np.zeros((16, 24, 16), np.uint8)
    array[2:14, 2:22, 2:14] = 1
    array[5:11, 5:11, 5:11] = 2
    array[8, 11:17, 8] = 2  # a spur into the liver
    found, _ = run(on(array), "opening", radius_mm=1.2, labels=["tumour"])
    assert (found.array[8, 12:17, 8] == 1).all() and (found.array[6:10, 6:10, 6:10] == 2).all()
    assert (found.array > 0).sum() == (array > 0).sum()
    whole, _ = run(on(array), "opening", radius_mm=1.2, labels=["liver"])
    assert ((array == 2) == (whole.array == 2)).all()  # the tumour is no gap in the liver
    kidneys = array.copy()
    kidneys[8, 8, 8] = 0
    closed, _ = run(on(kidneys), "closing", KITS, radius_mm=1.2)
    assert closed.array[8, 8, 8] in (1, 2) and (closed.array[array == 0] == 0).mean() > 0.99


def test_thick_slices_count_as_what_they_are() -> None:
    array = np.zeros((9, 20, 20), np.uint8)
    array[4, 5:15, 5:15] = 1  # one slice of 5 mm: no ball of 2 mm feels its neighbours
    found = run(on(array, (5.0, 1.0, 1.0)), "opening", radius_mm=1.0)[0].array
    corners = [(4, y, x) for y in (5, 14) for x in (5, 14)]
    assert [tuple(int(n) for n in voxel) for voxel in np.argwhere(found != array)] == corners
    assert not run(on(array, (1.0, 1.0, 1.0)), "opening", radius_mm=1.0)[0].array.any()


@pytest.mark.parametrize("radius", [0.0, -1.0, 99.0])
def test_a_radius_that_is_none(radius: float) -> None:
    with pytest.raises(RecipeError, match="radius_mm"):
        run(on(np.ones((4, 4, 4))), "opening", radius_mm=radius)
