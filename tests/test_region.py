"""Region first: the same labels as the whole scan gives, wherever organs lie, from fewer tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.inference import region
from hilum.inference.predict import Predictor
from hilum.inference.region import Border, Found
from hilum.model import load_model
from hilum.patches.tiles import tile_starts
from hilum.prepare.conventions import Conventions
from hilum.prepare.preprocess import prepare_scan, restream, stream_scan
from hilum.volume import Volume
from threshold_model import scan_of, threshold_model

SPACING_MM = (2.0, 1.5, 1.0)
SHAPE = (48, 84, 112)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return threshold_model(tmp_path_factory.mktemp("models") / "m")


def ct(classes: np.ndarray, codes: str = "SPL") -> Volume:
    """A scan whose background the network is sure of: at -100 HU it would find a probability of 0.2."""
    scan = scan_of(classes, SPACING_MM, codes)
    return scan.with_array(np.where(scan.array == -100, np.int16(-400), scan.array))


def body(*balls: tuple[tuple[float, float, float], float, int]) -> np.ndarray:
    """Class indices of a body (0) with balls: centre and radius in mm, class."""
    z, y, x = np.meshgrid(*[np.arange(n) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)], indexing="ij")
    classes = np.zeros(SHAPE, np.uint8)
    for centre, radius, value in balls:
        classes[sum((a - c) ** 2 for a, c in zip((z, y, x), centre, strict=True)) < radius**2] = value
    return classes


TWO = (((50, 80, 25), 10, 1), ((50, 80, 90), 10, 1), ((54, 84, 92), 4, 2))
ANATOMIES = {
    "two kidneys": TWO,
    "one kidney": TWO[:1],
    "a kidney in the pelvis": (*TWO[:1], ((4, 60, 60), 8, 1)),
    "a kidney at the edge of the scan": (((90, 120, 105), 9, 1),),
    "crossed and fused": (((40, 60, 25), 10, 1), ((58, 60, 25), 10, 1)),
    "a speck": (((30, 30, 30), 1.9, 1),),
}


@pytest.mark.parametrize("anatomy", ANATOMIES)
def test_the_same_labels_from_fewer_tiles(model, anatomy):
    scan = ct(body(*ANATOMIES[anatomy]), "RAS")
    whole = Predictor(model, "cpu", region=False).predict(prepare_scan(scan, model.plan))
    first = Predictor(model, "cpu", region=True).predict(stream_scan(scan, model.plan))
    assert whole.labels.array.any() and np.array_equal(first.labels.array, whole.labels.array)
    assert first.region["whole"] == "" and first.region["rounds"] == 0 and first.region["places"] >= 1
    assert first.tiles < 0.6 * whole.tiles and whole.region == {}


def test_a_cascade_goes_region_first_in_both_stages(tmp_path):
    first = threshold_model(tmp_path / "first", spacing_mm=(4.0, 3.0, 2.0)).folder
    cascade = threshold_model(tmp_path / "m", first=first)
    scan = ct(body(*TWO), "LPI")
    whole, some = (Predictor(cascade, "cpu", region=way) for way in (False, True))
    assert some.first is not None and some.first.region
    made = [one.predict(one.prepare(scan)) for one in (whole, some)]
    assert made[0].labels.array.any() and np.array_equal(made[0].labels.array, made[1].labels.array)
    assert made[1].region["whole"] == "" and made[1].tiles < 0.6 * made[0].tiles
    alone = Predictor(threshold_model(tmp_path / "alone"), "cpu").segment(scan).array
    assert not np.array_equal(alone, made[0].labels.array)  # the first stage's answer counts


def test_a_giant_organ_is_done_as_a_whole(model):
    scan = ct(body(((48, 60, 56), 60, 1)))
    first = Predictor(model, "cpu", region=True).predict(prepare_scan(scan, model.plan))
    assert "fill most" in first.region["whole"]
    assert np.array_equal(first.labels.array, Predictor(model, "cpu").segment(scan).array)


def test_where_nothing_is_found_the_whole_scan_is_done(model):
    scan = ct(body())
    first = Predictor(model, "cpu", region=True).predict(prepare_scan(scan, model.plan))
    assert first.region["whole"] == "no kidney found at first sight" and not first.labels.array.any()
    assert first.tiles > first.region["tiles_of_the_whole"]


def test_a_small_scan_is_done_as_a_whole(model):
    scan = ct(body(*TWO)[:8, :12, :20])
    assert Predictor(model, "cpu", region=True).predict(prepare_scan(scan, model.plan)).region["whole"]


def one_voxel_only(found: Found, start, logits_Kdhw):
    """A first look that sees one voxel of each tile's organ, as a poor locator might."""
    hit = (logits_Kdhw[1:].amax(0) > logits_Kdhw[0]).numpy()
    found.outputs[1:] |= hit.any()
    if hit.any() and not found.cells.any():
        only = np.zeros_like(hit)
        only[tuple(np.argwhere(hit)[0])] = True
        found.mark(start, only)
    return hit


def test_more_is_done_where_labels_were_cut(model, monkeypatch):
    scan = ct(body(((48, 60, 40), 21, 1)))
    monkeypatch.setattr(Found, "look", one_voxel_only)
    monkeypatch.setattr(region, "WORTH", 2.0)
    first = Predictor(model, "cpu", region=True).predict(prepare_scan(scan, model.plan))
    assert first.region["rounds"] >= 1
    assert np.array_equal(first.labels.array, Predictor(model, "cpu").segment(scan).array)


def test_a_locator_in_the_model_s_folder_finds_organs(tmp_path):
    folder = threshold_model(tmp_path / "m").folder
    threshold_model(folder / "locator", spacing_mm=(4.0, 4.0, 4.0), patch=(8, 8, 8))
    predictor = Predictor(load_model(folder), "cpu")
    assert predictor.region and predictor.locator is not None
    for name in ("two kidneys", "a kidney in the pelvis"):
        scan = ct(body(*ANATOMIES[name]), "LPS")
        first = predictor.predict(prepare_scan(scan, predictor.plan))
        whole = Predictor(predictor.model, "cpu", region=False).predict(prepare_scan(scan, predictor.plan))
        assert first.region["whole"] == "" and first.region["tiles"] < 0.7 * whole.tiles
        assert np.array_equal(first.labels.array, whole.labels.array)


@pytest.mark.parametrize("codes", ["SPL", "RIP", "LPI"])
def test_a_locator_may_list_voxels_in_another_order(tmp_path, codes):
    """A model of nnU-Net sees voxels as the file lists them; its locator sees every scan in hilum's own order."""
    folder = threshold_model(tmp_path / "m", conventions=Conventions(axes="file")).folder
    threshold_model(folder / "locator", spacing_mm=(4.0, 4.0, 4.0), patch=(8, 8, 8))
    predictor = Predictor(load_model(folder), "cpu")
    scan = ct(body(*ANATOMIES["a kidney in the pelvis"]), codes)
    whole = Predictor(predictor.model, "cpu", region=False).predict(prepare_scan(scan, predictor.plan))
    for case in (prepare_scan(scan, predictor.plan), stream_scan(scan, predictor.plan)):
        first = predictor.predict(case)
        assert first.region["whole"] == "" and first.region["rounds"] == 0
        assert first.region["tiles"] < 0.7 * whole.tiles
        # resampled logits that are equal but for the rounding of their sums
        assert np.count_nonzero(first.labels.array != whole.labels.array) <= 2 < np.count_nonzero(whole.labels.array)
    own = restream(prepare_scan(scan, predictor.plan), predictor.locator.plan)
    assert own.grid.codes == own.source_inside.codes == "SPL"


def test_the_model_says_whether_region_first_is_the_default(model):
    assert not Predictor(model, "cpu").region
    says = replace(model, inference=replace(model.inference, region=True))
    assert Predictor(says, "cpu").region and not Predictor(says, "cpu", region=False).region


@given(st.tuples(*[st.integers(8, 60)] * 3), st.lists(st.tuples(*[st.integers(0, 59)] * 3), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_tiles_cover_everything_that_was_found(shape, places):
    found = Found(shape, (8, 8, 8), 2, regions=False)
    places = [tuple(min(p, n - 1) for p, n in zip(place, shape, strict=True)) for place in places]
    for place in places:
        found.mark(place, np.ones((1, 1, 1), bool))
    covered = np.zeros(shape, bool)
    whole, some = tile_starts(shape, (8, 8, 8), 0.5), found.tiles(0.5)
    assert some == [start for start in whole if start in some] and some  # the same tiles, in the same order
    assert set(some) <= set(found.tiles(0.5, wider=1))
    for z, y, x in some:
        covered[z : z + 8, y : y + 8, x : x + 8] = True
    for place in places:
        near = tuple(slice(max(0, p - 2), p + 3) for p in place)
        assert covered[near].all()
        # the tile whose centre is nearest is asked, so that what was found lies a quarter of a patch inside at least
        away = [max(abs(p + 0.5 - (s + 4)) for p, s in zip(place, start, strict=True)) for start in whole]
        assert min(away) in [away[whole.index(start)] for start in some]


@given(st.lists(st.tuples(st.tuples(*[st.integers(0, 59)] * 3), st.booleans()), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_is_unsure_is_asked_about_too(places):
    found, sure, all_sure = (Found((60, 60, 60), (16, 16, 16), 2, regions=False) for _ in range(3))
    for place, is_sure in places:
        found.mark(place, np.ones((1, 1, 1), bool), sure=is_sure)
        all_sure.mark(place, np.ones((1, 1, 1), bool))
        if is_sure:
            sure.mark(place, np.ones((1, 1, 1), bool))
    some = found.tiles(0.5)
    assert set(sure.tiles(0.5)) <= set(some) <= set(all_sure.tiles(0.5)) and some == sorted(some)
    for place, _ in places:  # two voxels inside a tile, or at the scan's own edge
        assert any(
            all(
                s + (2 if s else 0) <= p < s + 16 - (2 if s + 16 < 60 else 0) for p, s in zip(place, start, strict=True)
            )
            for start in some
        )


def test_what_is_unsure_beside_an_organ_costs_no_tile():
    found = Found((64, 64, 64), (16, 16, 16), 2, regions=False)
    found.mark((24, 24, 24), np.ones((1, 1, 1), bool))
    assert found.tiles(0.5) == [(16, 16, 16)]
    found.mark((28, 28, 28), np.ones((1, 1, 1), bool), sure=False)
    assert found.tiles(0.5) == [(16, 16, 16)] and found.pieces == 2
    found.mark((28, 28, 28), np.ones((1, 1, 1), bool))
    assert found.tiles(0.5) == [(16, 16, 16), (24, 24, 24)]


@pytest.mark.parametrize("scale", [2.0, 3.5, 5.0])
def test_a_coarse_voxel_marks_every_cell_that_it_covers(scale):
    found = Found((40, 40, 40), (16, 32, 48), 2, regions=False)  # cells of 1, 2 and 3 voxels
    found.mark((1, 2, 3), np.ones((1, 1, 1), bool), (scale,) * 3)
    wanted = np.zeros_like(found.cells)
    wanted[tuple(slice(int(k * scale / c), int(np.ceil((k + 1) * scale / c))) for k, c in ((1, 1), (2, 2), (3, 3)))] = 1
    assert np.array_equal(found.cells, wanted)


def test_a_border_notes_what_touches_the_unasked():
    logits = torch.zeros((2, 3, 5, 5))
    logits[1, 1, 2, 2] = 1
    unasked = torch.zeros((3, 5, 5), dtype=torch.bool)
    for place in ((1, 2, 3), (0, 2, 2), (2, 2, 2)):
        border, out = Border(regions=False), unasked.clone()
        out[place] = True
        border.look(4, logits[:, :2], out[:2])
        border.look(6, logits[:, 2:], out[2:])
        assert border.places == [(5, 2, 2)], place
    border = Border(regions=False)
    border.look(0, logits, None)
    assert border.places == []
