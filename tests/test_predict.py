from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.config import InferenceOptions
from hilum.errors import ModelError, RecipeError, UsageError
from hilum.inference.export import SURE
from hilum.inference.folds import mirror_axes
from hilum.inference.predict import AIR_HU, Predictor, air_below
from hilum.labels import SCHEMES, scheme_from
from hilum.model import NetworkSpec, load_model, save_model
from hilum.networks import plan_options
from hilum.patches.tiles import gaussian_weights, tile_starts
from hilum.prepare.plan import Normalisation
from hilum.prepare.preprocess import Case, prepare_scan
from hilum.volume import Volume
from test_export import everything_at_once
from threshold_model import blocks, grid_of, labels_of, make_plan, scan_of, threshold_model

SPACING_MM = (2.0, 1.5, 1.0)
KITS, ABDOMEN = SCHEMES["kits"], SCHEMES["abdomen"]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / max(1, float(a.sum() + b.sum()))


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory):
    return Predictor(threshold_model(tmp_path_factory.mktemp("models") / "m"), "cpu")


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """A small U-Net with random weights: its logits differ at every voxel and at every place of the window."""
    torch.manual_seed(4)
    plan = make_plan((8, 16, 16), SPACING_MM)
    spec = NetworkSpec("plain_unet", plan_options(plan), 1, 4, 3)
    folder = save_model(
        tmp_path_factory.mktemp("models") / "unet", spec, spec.build().state_dict(), plan, KITS, InferenceOptions()
    )
    return Predictor(load_model(folder), "cpu")


@pytest.mark.parametrize("codes", ["SPL", "RAS", "LPS", "IPL", "PIR"])
@pytest.mark.parametrize("shape", [(19, 31, 23), (8, 12, 16), (1, 40, 37), (33, 5, 70), (1, 1, 1)])
def test_a_scan_whose_hu_are_its_labels_comes_back_exactly(thresholds, shape, codes):
    classes = blocks(shape)
    scan = scan_of(classes, SPACING_MM, codes)
    labels = thresholds.segment(scan)
    assert labels.array.dtype == np.uint8 and labels.codes == codes
    assert np.array_equal(labels.affine, scan.affine) and labels.shape == scan.shape
    assert np.array_equal(labels.oriented().array, classes)


def test_a_thousand_slices(thresholds):
    """As many as KiTS23's longest scan: the buffer moves up 260 times."""
    classes = blocks((1059, 9, 11))
    scan = scan_of(classes, SPACING_MM, "LPI")
    for case in (thresholds.prepare(scan), thresholds.prepare(scan, streamed=True)):
        assert np.array_equal(thresholds.predict(case).labels.oriented().array, classes)


@given(shape=st.tuples(*[st.integers(1, 30)] * 3), seed=st.integers(0, 9), codes=st.sampled_from(["RPI", "ASL", "LIP"]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape_and_axis_order(thresholds, shape, seed, codes):
    classes = blocks(shape, seed)
    labels = thresholds.segment(scan_of(classes, SPACING_MM, codes))
    assert np.array_equal(labels.oriented().array, classes)


def test_an_oblique_scan_keeps_its_affine(thresholds):
    scan = scan_of(blocks((9, 20, 21)), SPACING_MM)
    angle = np.radians(12)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    scan = Volume(scan.array, turn @ scan.affine)
    labels = thresholds.segment(scan)
    assert np.array_equal(labels.affine, scan.affine) and np.array_equal(labels.array, blocks((9, 20, 21)))


@pytest.mark.parametrize("spacing_mm", [(5.0, 0.8, 0.8), (1.0, 3.0, 2.0), (2.2, 1.4, 1.1)])
def test_other_spacings_are_nearly_the_same(thresholds, spacing_mm):
    d, h, w = (round(size / s) for size, s in zip((60, 90, 90), spacing_mm, strict=True))
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (d, h, w)], indexing="ij")
    classes = ((z**2 + y**2 + x**2) < 0.6).astype(np.uint8)
    labels = thresholds.segment(scan_of(classes, spacing_mm, "RAS"))
    assert dice(labels.oriented().array > 0, classes > 0) > 0.93


def test_label_values_are_the_scheme_s(tmp_path):
    scheme = scheme_from({"values": {"liver": 7, "liver tumour": 200}})
    predictor = Predictor(threshold_model(tmp_path / "m", scheme=scheme), "cpu")
    classes = np.minimum(blocks((9, 13, 17)), 2)
    labels = predictor.segment(scan_of(classes, SPACING_MM))
    assert np.array_equal(labels.array, np.array([0, 7, 200], np.uint8)[classes])


@pytest.mark.parametrize("shape", [(13, 20, 17), (8, 16, 16), (3, 20, 9)])
@pytest.mark.parametrize("target", [(13, 20, 17), (20, 30, 41), (9, 21, 22)])
def test_rolling_slabs_equal_the_unbounded_way_bit_for_bit(unet, shape, target):
    rng = np.random.default_rng(1)
    image = rng.integers(-400, 400, shape).astype(np.int16)
    source = grid_of(target, SPACING_MM)
    case = Case(image, source.reshaped(shape), source, source, "c")
    prediction = unet.predict(case)
    assert np.array_equal(prediction.labels.array, unbounded(unet, image, target))


def unbounded(predictor: Predictor, image: np.ndarray, target: tuple[int, int, int]) -> np.ndarray:
    """All logits of the whole scan at once, then all of them interpolated, then the argmax."""
    lack = [max(0, p - n) for n, p in zip(image.shape, predictor.plan.patch, strict=True)]
    before = [n // 2 for n in lack]
    padded = np.pad(image, [(b, n - b) for b, n in zip(before, lack, strict=True)], constant_values=-1024)
    weights = torch.from_numpy(gaussian_weights(predictor.plan.patch))
    total, weight = torch.zeros((4, *padded.shape)), torch.zeros(padded.shape)
    with torch.inference_mode():
        for start in tile_starts(padded.shape, predictor.plan.patch, predictor.overlap):
            box = tuple(slice(s, s + p) for s, p in zip(start, predictor.plan.patch, strict=True))
            total[:, *box] += predictor.folds.logits(torch.from_numpy(padded[box])[None])[0] * weights
            weight[box] += weights
    inside = tuple(slice(b, b + n) for b, n in zip(before, image.shape, strict=True))
    return everything_at_once((total / weight)[:, *inside], target)


def test_nothing_depends_on_the_batch(unet):
    scan = scan_of(blocks((8, 16, 40)), SPACING_MM)
    one = unet.segment(scan)
    many = Predictor(unet.model, "cpu", batch=5).segment(scan)
    # convolutions may round differently in a batch; the network is random, so that some voxels are undecided
    assert (one.array != many.array).mean() < 0.01


def test_a_two_dimensional_model(tmp_path):
    model = threshold_model(tmp_path / "m", patch=(1, 16, 16), dims=2)
    classes = blocks((7, 33, 18))
    for batch in (0, 4):
        labels = Predictor(model, "cpu", batch=batch, mirror=True).segment(scan_of(classes, SPACING_MM, "LPS"))
        assert np.array_equal(labels.oriented().array, classes)


def test_a_two_dimensional_unet_runs(tmp_path):
    plan = make_plan((1, 16, 16), SPACING_MM, dims=2)
    options = {**plan_options(plan), "kernels": [[3, 3]] * 2, "strides": [[1, 1], [2, 2]]}
    spec = NetworkSpec("plain_unet", options, 1, 4, 2)
    folder = save_model(tmp_path / "m", spec, spec.build().state_dict(), plan, KITS)
    labels = Predictor(load_model(folder), "cpu").segment(scan_of(blocks((3, 20, 30)), SPACING_MM))
    assert labels.shape == (3, 20, 30)


def test_folds_and_mirrors_of_a_symmetric_network_change_nothing(tmp_path):
    scan = scan_of(blocks((19, 31, 23)), SPACING_MM)
    plain = Predictor(threshold_model(tmp_path / "one"), "cpu").segment(scan)
    both = Predictor(threshold_model(tmp_path / "two", folds=2, mirror=True), "cpu")
    assert both.mirror and len(both.folds.flips) == 8
    assert np.array_equal(both.segment(scan).array, plain.array)


def test_mirrored_copies_are_flipped_back(unet):
    mirrored = Predictor(unet.model, "cpu", mirror=True)
    tiles = torch.randn((1, 8, 16, 16), generator=torch.Generator().manual_seed(0)) * 300
    with torch.inference_mode():
        logits = mirrored.folds.logits(tiles)
        turned = mirrored.folds.logits(tiles.flip(-1)).flip(-1)
    # averaging over all flips makes the network symmetric; bf16 convolutions round at 3 digits
    assert torch.allclose(logits, turned, atol=0.05)
    assert not torch.allclose(logits, unet.folds.logits(tiles), atol=0.05)


def test_left_and_right_are_not_swapped_where_the_scheme_tells_them_apart():
    assert len(mirror_axes(3, False)) == 8 and len(mirror_axes(2, False)) == 4
    assert mirror_axes(3, True) == [(), (-3,), (-2,), (-3, -2)]
    assert mirror_axes(2, True) == [(), (-2,)]
    assert ABDOMEN.sided and not KITS.sided


def test_a_scan_of_air_is_background_without_asking_the_network(thresholds, monkeypatch):
    monkeypatch.setattr(thresholds.folds, "logits", lambda *_, **__: pytest.fail("the network was asked"))
    scan = scan_of(blocks((20, 30, 40)), SPACING_MM)
    air = scan.with_array(np.full(scan.shape, air_below(thresholds.plan), np.int16))
    prediction = thresholds.predict(prepare_scan(air, thresholds.plan))
    assert not prediction.labels.array.any() and prediction.skipped == prediction.tiles > 1


def test_organs_as_light_as_air_are_not_taken_for_it(tmp_path):
    """Lungs lie at -800 HU: whole tiles of them stay below the limit that suits kidneys."""
    model = threshold_model(tmp_path / "lungs", edges_hu=(-900.0, -700.0, -600.0))
    hu = np.full((16, 24, 32), -1000, np.int16)
    hu[:, 6:18, 8:24] = -800
    labels = Predictor(model, "cpu").segment(Volume.on(grid_of(hu.shape, SPACING_MM), hu))
    assert np.array_equal(labels.array == 1, hu == -800)
    kinds = [Normalisation("ct", -75.0, 300.0, 100.0, 70.0), Normalisation("zscore", -32768.0, 32767.0, 100.0, 70.0)]
    assert [air_below(replace(model.plan, normalisation=kind)) for kind in kinds] == [AIR_HU, -32768.0]


def test_one_voxel_above_air_is_enough_to_be_asked(thresholds):
    hu = np.full((20, 30, 40), -1000, np.int16)
    hu[10, 20, 30] = 300
    grid = grid_of(hu.shape, SPACING_MM)
    case = Case(hu, grid, grid, grid, "c")
    prediction = thresholds.predict(case)
    assert 0 < prediction.skipped < prediction.tiles
    assert prediction.labels.array[10, 20, 30] == 3 and prediction.labels.array.astype(bool).sum() == 1


def test_leaving_out_air_changes_no_label(tmp_path):
    model = threshold_model(tmp_path / "m", mirror=False)
    classes = np.zeros((30, 40, 60), np.uint8)
    classes[12:20, 15:30, 20:33] = blocks((8, 15, 13), 3)
    hu = np.where(classes, np.array([0, 100, 200, 300])[classes], -1000).astype(np.int16)
    grid = grid_of(hu.shape, SPACING_MM)
    case = Case(hu, grid, grid, grid, "c")
    with_air, without = (Predictor(model, "cpu", skip_air=skip).predict(case) for skip in (False, True))
    assert with_air.skipped == 0 < without.skipped
    assert np.array_equal(with_air.labels.array, without.labels.array)
    assert SURE > 0


def test_probabilities(thresholds):
    classes = blocks((9, 20, 30))
    scan = scan_of(classes, SPACING_MM, "RAS")
    prediction = thresholds.predict(prepare_scan(scan, thresholds.plan), probabilities=True)
    assert list(prediction.probabilities) == ["kidney", "tumour", "cyst"]
    shares = np.stack([volume.array for volume in prediction.probabilities.values()]).astype(int)
    assert shares.shape[1:] == scan.shape and np.array_equal(prediction.probabilities["cyst"].affine, scan.affine)
    # the network's logits at HU 300 are 0, 2.5, 4, 4.5 by its formula
    expected = np.exp([0, 2.5, 4, 4.5]) / np.exp([0, 2.5, 4, 4.5]).sum()
    at_cyst = prediction.labels.array == 3
    assert np.abs(shares[:, at_cyst].T - expected[1:] * 255).max() <= 1.5
    background = 255 - shares.sum(0)
    best = np.argmax([background, *shares], axis=0)
    assert (best == prediction.labels.array).all()


def test_probabilities_are_made_only_if_asked_for(thresholds):
    assert thresholds.predict(prepare_scan(scan_of(blocks((4, 4, 4)), SPACING_MM), thresholds.plan)).probabilities == {}


def test_post_processing_belongs_to_segment(tmp_path):
    classes = np.zeros((10, 20, 20), np.uint8)
    classes[2:8, 2:10, 2:10] = 1
    classes[8, 17, 17] = 2
    model = threshold_model(tmp_path / "m", postprocess=({"step": "touch_organ"},))
    predictor = Predictor(model, "cpu")
    scan = scan_of(classes, SPACING_MM)
    assert predictor.predict(prepare_scan(scan, model.plan)).labels.array[8, 17, 17] == 2
    assert predictor.segment(scan).array[8, 17, 17] == 0


def test_a_network_that_gives_nan_is_a_model_error(tmp_path):
    predictor = Predictor(threshold_model(tmp_path / "m"), "cpu")
    sound = predictor.folds.networks[0]
    predictor.folds.networks[0] = lambda images: sound(images) * float("nan")
    with pytest.raises(ModelError, match="NaN"):
        predictor.segment(scan_of(blocks((5, 6, 7)), SPACING_MM))


def test_wrong_use_is_told_before_any_scan_is_read(tmp_path):
    model = threshold_model(tmp_path / "m")
    with pytest.raises(UsageError, match="overlap"):
        Predictor(model, "cpu", overlap=1.0)
    with pytest.raises(UsageError, match="device"):
        Predictor(model, "abacus")
    with pytest.raises(RecipeError, match="keep_largest"):
        Predictor(threshold_model(tmp_path / "n", postprocess=({"step": "tidy"},)), "cpu")


def test_a_network_of_regions_writes_nested_labels(tmp_path):
    scheme = SCHEMES["kits"]
    spec = NetworkSpec("own_networks.region_thresholds", {}, 1, 3, 3, "regions")
    plan = make_plan((8, 12, 16), SPACING_MM)
    state = {"edges": torch.tensor([0.5, 1.5, 2.5])}
    save_model(tmp_path / "m", spec, state, plan, scheme)
    predictor = Predictor(load_model(tmp_path / "m"), "cpu")
    classes = blocks((9, 20, 30))
    case = prepare_scan(scan_of(classes, SPACING_MM, "LAS"), plan, "c")
    made = predictor.predict(case, probabilities=True)
    expected = labels_of(np.array([0, 1, 3, 2], np.uint8)[classes], SPACING_MM, "LAS")  # over 50, 150 and 250 HU
    assert np.array_equal(made.labels.array, expected.array)
    assert list(made.probabilities) == ["kidney_and_mass", "mass", "tumor"]
    mass = made.probabilities["mass"].array
    assert (mass > 127).sum() == (classes >= 2).sum() and mass.min() < 40  # sigmoid of -2.5, -0.5, 0.5, 1.5


def test_a_head_that_does_not_fit_the_labels_is_refused(tmp_path):
    plan, scheme = make_plan((8, 12, 16), SPACING_MM), SCHEMES["kits"]
    spec = NetworkSpec("own_networks.region_thresholds", {}, 1, 4, 3, "regions")
    with pytest.raises(ModelError, match=r"4 network outputs where scheme 'kits' has 3 regions"):
        save_model(tmp_path / "m", spec, {"edges": torch.zeros(4)}, plan, scheme)
