"""Losses of networks of regions: worked numbers, agreement with one another, and a run that learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilum.config import recipe_from
from hilum.errors import RecipeError
from hilum.inference.predict import Predictor
from hilum.judge.overlap import dice, mask_counts
from hilum.labels import SCHEMES
from hilum.model import load_model
from hilum.scans import read_labels, read_scan
from hilum.training._nested_losses import NESTED
from hilum.training.loop import train
from hilum.training.losses import make_loss, region_table
from hilum.training.setup import check_recipe
from hilum.training.tracking import PatchRegionDice, read_log
from making_runs import losses, make_cases, one_thread, recipe

__all__ = ["one_thread"]  # a fixture that works by itself
KITS = region_table(SCHEMES["kits"])
EDGE = 9.0  # a logit whose logistic function is 0.99988


def test_which_classes_each_region_holds() -> None:
    assert KITS.tolist() == [[False, True, True, True], [False, False, True, True], [False, False, True, False]]


def certain(truth: torch.Tensor, logit: float = EDGE) -> torch.Tensor:
    """Logits (B, 3, ...) of a network that knows."""
    return torch.where(KITS[:, truth].transpose(0, 1), logit, -logit)


@pytest.mark.parametrize("name", sorted(NESTED))
def test_right_is_near_zero_and_wrong_is_dear(name: str) -> None:
    truth = torch.randint(0, 4, (2, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    loss = make_loss(name, {}, 4, regions=KITS)
    right, wrong, unsure = (loss(x, truth) for x in (certain(truth), -certain(truth), torch.zeros(2, 3, 4, 5, 6)))
    assert 0 <= right < 0.001 * max(1.0, float(wrong)) + 0.003 and right < unsure < wrong


def test_worked_numbers() -> None:
    """One voxel of tumour, one of background; every output says one half: BCE is log 2, Dice of each region is 2/3."""
    truth, logits = torch.tensor([[2, 0]]), torch.zeros(1, 3, 2)
    assert float(make_loss("ce", {}, 4, regions=KITS)(logits, truth)) == pytest.approx(math.log(2))
    dice_loss = float(make_loss("dice", {"smooth": 0.0}, 4, regions=KITS)(logits, truth))
    assert dice_loss == pytest.approx(1 - 2 * 0.5 / (1 + 1))
    both = float(make_loss("dice_ce", {"smooth": 0.0}, 4, regions=KITS)(logits, truth))
    assert both == pytest.approx(math.log(2) + 0.5)
    assert float(make_loss("focal", {"gamma": 2.0}, 4, regions=KITS)(logits, truth)) == pytest.approx(math.log(2) / 4)
    index = 0.5 / (0.5 + 0.3 * 0.5 + 0.7 * 0.5)
    assert float(make_loss("tversky", {"smooth": 0.0}, 4, regions=KITS)(logits, truth)) == pytest.approx(1 - index)


@given(seed=st.integers(0, 99))
def test_tversky_of_equal_halves_is_dice(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, truth = torch.randn(2, 3, 30, generator=generator), torch.randint(0, 4, (2, 30), generator=generator)
    halves = make_loss("tversky", {"alpha": 0.5, "beta": 0.5, "smooth": 0.0}, 4, regions=KITS)(logits, truth)
    whole = make_loss("dice", {"smooth": 0.0}, 4, regions=KITS)(logits, truth)
    assert float(halves) == pytest.approx(float(whole), abs=1e-6)


def test_coarser_resolutions_and_sums() -> None:
    truth = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    truth[:, 2:6, 2:6, 2:6] = 2
    loss = make_loss("sum", {"terms": {"ce": 0.5, "batch_dice": 1.0}}, 4, regions=KITS)
    fine, coarse = torch.zeros(1, 3, 8, 8, 8), torch.zeros(1, 3, 4, 4, 4)
    assert float(loss([fine, coarse], truth)) == pytest.approx(float(loss(fine, truth)))  # the coarsest weighs nothing


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(RecipeError, match="no loss 'boundary' of regions"):
        make_loss("boundary", {}, 4, regions=KITS)
    with pytest.raises(RecipeError, match="has no option 'class_weights'"):
        make_loss("ce", {"class_weights": [1, 1, 1, 1]}, 4, regions=KITS)
    own = {"name": "x", "values": {"kidney": 1, "tumour": 2}, "regions": {"all": [1, 2], "again": [1, 2]}}
    with pytest.raises(RecipeError, match="has no label for itself"):
        check_recipe(recipe_from({"labels": own, "network": {"head": "regions"}}))


def test_patch_dice_of_regions() -> None:
    truth = torch.tensor([[0, 1, 2, 3]])
    pooled = PatchRegionDice(["kidney_and_mass", "mass", "tumor"], KITS)
    pooled.add(truth, certain(truth))
    assert pooled.scores() == {"kidney_and_mass": 1.0, "mass": 1.0, "tumor": 1.0}
    pooled.add(truth, -certain(truth))
    assert pooled.scores()["tumor"] == pytest.approx(2 * 1 / (2 + 1 + 3))
    assert PatchRegionDice(["a"], KITS[:1]).scores() == {"a": None}


def test_a_run_of_regions_learns_and_segments(tmp_path: Path) -> None:
    dataset = make_cases(tmp_path / "cubes")
    asked = recipe(steps=50, epoch_steps=25, learning_rate=0.02, loss="dice_bce")
    asked = replace(asked, network=replace(asked.network, head="regions"))
    result = train(asked, dataset, tmp_path / "run", device="cpu")
    assert losses(tmp_path / "run")[-1] < 0.7 * losses(tmp_path / "run")[0]
    assert set(read_log(result.log)[-1]["patch_dice"]) == {"liver", "lesion"}
    model = load_model(result.model)
    assert model.spec.head == "regions" and model.spec.out_channels == 2
    case = next(case for case in dataset.cases if case.name in result.held_out)
    assert case.labels is not None
    found = Predictor(model, "cpu").segment(read_scan(case.image))
    truth = read_labels(case.labels, model.scheme)
    assert dice(mask_counts(truth.array > 0, found.array > 0)) > 0.7
    assert dice(mask_counts(truth.array == 2, found.array == 2)) > 0.5
