"""Several models as one; probabilities, entropy and disagreement."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hilum.errors import ModelError, UsageError
from hilum.inference.ensemble import Ensemble, identity
from hilum.inference.export import MapExporter, entropy
from hilum.inference.predict import Predictor
from hilum.labels import SCHEMES
from hilum.model import load_model, save_model
from threshold_model import blocks, make_plan, scan_of, threshold_model

SPACING_MM = (2.0, 1.5, 1.0)
SHAPE = (19, 31, 23)


def predictor(folder, **options):
    return Predictor(threshold_model(folder, **options), "cpu")


@pytest.mark.parametrize("decision", ["mean", "vote"])
@pytest.mark.parametrize("streamed", [False, True])
def test_models_of_other_patches_that_agree_give_what_each_gives(tmp_path, decision, streamed):
    one, two = predictor(tmp_path / "a"), predictor(tmp_path / "b", patch=(6, 16, 10))
    both = Ensemble([one, two], decision)
    scan = scan_of(blocks(SHAPE), SPACING_MM, "LPS")
    made = both.predict(both.prepare(scan, streamed=streamed), probabilities=True)
    assert np.array_equal(made.labels.array, one.segment(scan).array)
    assert np.array_equal(both.segment(scan).array, made.labels.array)
    assert made.uncertainty["disagreement"].array.max() == 0 < made.uncertainty["entropy"].array.max()


def test_two_against_one(tmp_path):
    """HU 120 is class 1 for two models and, with certainty, class 0 for the third."""
    members = [predictor(tmp_path / str(n)) for n in range(2)] + [predictor(tmp_path / "c", edges_hu=(900, 950, 980))]
    scan = scan_of(blocks((8, 12, 16)), SPACING_MM)
    scan = scan.with_array(np.full(scan.shape, 120, np.int16))
    assert (Ensemble(members, "vote").segment(scan).array == 1).all()
    shares = [m.predict(m.prepare(scan), probabilities=True).probabilities["kidney"].array[0, 0, 0] for m in members]
    made = (whole := Ensemble(members, "mean")).predict(whole.prepare(scan), probabilities=True)
    assert made.probabilities["kidney"].array[0, 0, 0] == pytest.approx(np.mean([int(s) for s in shares]), abs=1)
    assert made.uncertainty["disagreement"].array[0, 0, 0] > 60


def test_an_ensemble_has_a_name_and_a_hash_of_its_own(tmp_path):
    one, two = predictor(tmp_path / "a"), predictor(tmp_path / "b", edges_hu=(40.0, 150.0, 250.0))
    both = identity(Ensemble([one, two]))
    assert both["name"] == "a+b" and len({both["hash"], one.model.hash, two.model.hash}) == 3
    assert identity(one) == {"name": "a", "hash": one.model.hash}


def test_models_of_other_labels_are_refused(tmp_path):
    with pytest.raises(ModelError, match="labels"):
        Ensemble([predictor(tmp_path / "a"), predictor(tmp_path / "b", scheme=SCHEMES["lits"])])
    with pytest.raises(UsageError, match="vote"):
        Ensemble([predictor(tmp_path / "a"), predictor(tmp_path / "c")], "loudest")


def test_entropy_by_hand():
    shares = torch.tensor([[[0.5, 1.0, 0.25]], [[0.5, 0.0, 0.25]], [[0.0, 0.0, 0.25]], [[0.0, 0.0, 0.25]]])
    assert entropy(shares, regions=False).tolist()[0] == pytest.approx([0.5, 0.0, 1.0], abs=1e-5)
    regions = torch.tensor([[[0.5, 0.99]], [[0.0, 1.0]]])
    found = entropy(regions, regions=True)[0]
    assert found[0] == pytest.approx(1.0) and found[1] == pytest.approx(0.0808, abs=1e-3)


def test_folds_that_contradict_each_other(tmp_path):
    model = threshold_model(tmp_path / "m")
    other = {"edges": torch.tensor([9.0, 9.5, 9.8])}
    save_model(
        tmp_path / "two", model.spec, [dict(model.weights[0]), other], make_plan((8, 12, 16), SPACING_MM), model.scheme
    )
    two = Predictor(load_model(tmp_path / "two"), "cpu")
    hu = torch.full((1, 8, 12, 16), 120.0)
    made = two.folds.logits(hu, disagreement=True)
    assert made.shape[1] == 5
    off = float(made[0, 4, 0, 0, 0])
    first, second = (
        net(two.plan.normalisation.apply(hu[:, None]))[0, :, 0, 0, 0].softmax(0) for net in two.folds.networks
    )
    mean = (first + second) / 2
    expected = float(((first - mean).abs().sum() + (second - mean).abs().sum()) / 4)
    assert off == pytest.approx(expected, abs=0.01) and off > 0.2
    scan = scan_of(blocks(SHAPE), SPACING_MM)
    prediction = two.predict(two.prepare(scan), probabilities=True)
    assert prediction.uncertainty["disagreement"].array.max() > 60
    assert prediction.uncertainty["disagreement"].shape == scan.shape


def test_a_map_is_interpolated_slice_by_slice():
    shares = torch.rand((5, 6, 7), generator=torch.Generator().manual_seed(0))
    exporter = MapExporter((5, 6, 7), (11, 9, 7))
    exporter.take(shares[:2].clone())
    exporter.take(shares[2:].clone())
    full = torch.nn.functional.interpolate(shares[None, None], size=(11, 9, 7), mode="trilinear", align_corners=False)
    assert np.abs(exporter.map_ZYX - full[0, 0].numpy() * 255).max() <= 0.51


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_map_takes_the_nearest_along_the_axis_that_logits_do(axis):
    shares = torch.rand((5, 6, 7), generator=torch.Generator().manual_seed(axis))
    target = (11, 13, 9)
    exporter = MapExporter((5, 6, 7), target, axis)
    exporter.take(shares[:2].clone())
    exporter.take(shares[2:].clone())
    sharp = [target[axis] if a == axis else n for a, n in enumerate(shares.shape)]
    picked = torch.nn.functional.interpolate(shares[None, None], size=sharp, mode="nearest-exact")
    full = torch.nn.functional.interpolate(picked, size=target, mode="trilinear", align_corners=False)
    assert np.abs(exporter.map_ZYX - full[0, 0].numpy() * 255).max() <= 0.51
