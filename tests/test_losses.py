from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import RecipeError
from hilum.training.losses import LOSSES, make_loss, scale_weights, shrunk

OPTIONS = {"ce": {}, "dice": {"batch_dice": True}, "dice_ce": {"batch_dice": False, "class_weights": [1, 2, 3]}}


def draw(shape: tuple[int, ...] = (2, 3, 4, 6, 6), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def test_worked_numbers() -> None:
    # two voxels, two classes; the softmax of (0, log 3) is (1/4, 3/4)
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(3), 0.0]]])  # class 1: 3/4, 1/4
    truth = torch.tensor([[1, 0]])
    assert make_loss("ce", {}, 2)(logits, truth).item() == pytest.approx(-math.log(0.75))
    assert make_loss("dice", {"smooth": 0}, 2)(logits, truth).item() == pytest.approx(1 - 2 * 0.75 / (1 + 1))
    both = make_loss("dice_ce", {"smooth": 0, "ce_weight": 2, "dice_weight": 0.5}, 2)(logits, truth).item()
    assert both == pytest.approx(-2 * math.log(0.75) + 0.5 * 0.25)
    # a class weight of 3 on class 1: weighted mean of equal values is that value; of unequal ones it is not
    skewed = torch.tensor([[[0.0, 0.0], [math.log(3), math.log(3)]]])
    weighted = make_loss("ce", {"class_weights": [1, 3]}, 2)(skewed, truth).item()
    assert weighted == pytest.approx((-3 * math.log(0.75) - math.log(0.25)) / 4)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_dice_is_that_of_one_hot_arrays(batch_dice: bool) -> None:
    logits, truth = draw()
    p, t = logits.softmax(1)[:, 1:], torch.nn.functional.one_hot(truth, 3).movedim(-1, 1)[:, 1:].float()
    axes = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    dice = (2 * (p * t).sum(axes) + 1e-5) / (p.sum(axes) + t.sum(axes) + 1e-5)
    found = make_loss("dice", {"batch_dice": batch_dice}, 3)(logits, truth)
    assert found.item() == pytest.approx(1 - dice.mean().item(), abs=1e-6)


def test_gradients_are_right() -> None:
    # loss_of makes fp32 of whatever comes; the functions themselves are checked in fp64
    logits, truth = draw((2, 3, 8))
    for function in LOSSES.values():
        assert torch.autograd.gradcheck(lambda x, f=function: f(x, truth), logits.double().requires_grad_())


@pytest.mark.parametrize("name", sorted(LOSSES))
class TestEveryLoss:
    def test_is_small_when_right_and_large_when_wrong(self, name: str) -> None:
        _, truth = draw()
        right = torch.nn.functional.one_hot(truth, 3).movedim(-1, 1) * 40.0
        loss = make_loss(name, OPTIONS[name], 3)
        assert 0 <= loss(right, truth).item() < 1e-3
        assert loss(-right, truth).item() > 0.5

    def test_takes_uint8_and_int64_and_short_logits_and_answers_in_fp32(self, name: str) -> None:
        logits, truth = draw()
        loss = make_loss(name, OPTIONS[name], 3)
        assert torch.equal(loss(logits, truth), loss(logits, truth.to(torch.uint8)))
        short = loss(logits.bfloat16(), truth)
        assert short.dtype == torch.float32
        assert torch.equal(short, loss(logits.bfloat16().float(), truth))

    def test_a_patch_of_background_alone_gives_finite_gradients(self, name: str) -> None:
        logits, truth = draw()
        logits.requires_grad_()
        make_loss(name, OPTIONS[name], 3)(logits, torch.zeros_like(truth)).backward()
        assert bool(logits.grad.isfinite().all())

    def test_deep_supervision_is_the_weighted_sum(self, name: str) -> None:
        logits, truth = draw((2, 3, 4, 8, 8))
        half, quarter = draw((2, 3, 4, 4, 4))[0], draw((2, 3, 2, 2, 2))[0]
        loss = make_loss(name, OPTIONS[name], 3)
        expected = loss(logits, truth) * 2 / 3 + loss(half, truth[:, :, 1::2, 1::2]) / 3
        assert loss([logits, half, quarter], truth).item() == pytest.approx(expected.item(), rel=1e-6)

    def test_works_in_2d(self, name: str) -> None:
        logits, truth = draw((2, 3, 8, 8))
        flat = make_loss(name, OPTIONS[name], 3)(logits, truth)
        deep = make_loss(name, OPTIONS[name], 3)(logits[:, :, None], truth[:, None])
        assert flat.item() == pytest.approx(deep.item())

    def test_unknown_options_are_refused(self, name: str) -> None:
        with pytest.raises(RecipeError, match="no option 'gamma'"):
            make_loss(name, {"gamma": 2}, 3)


def test_scale_weights() -> None:
    assert scale_weights(1) == [1.0]
    assert scale_weights(2) == [1.0, 0.0]
    assert scale_weights(4) == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_shrinking_takes_the_middle_voxel(d: int, h: int, w: int, factor: int) -> None:
    coarse = torch.arange(d * h * w).reshape(1, d, h, w)
    fine = coarse
    for axis in (1, 2, 3):
        fine = fine.repeat_interleave(factor, axis)
    assert torch.equal(shrunk(fine, (d, h, w)), coarse)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("focal", {}, "one of"),
        ("ce", {"class_weights": [1, 2]}, "3 numbers"),
        ("ce", {"class_weights": [0, 0, 0]}, "3 numbers"),
        ("ce", {"class_weights": 2}, "3 numbers"),
        ("dice", {"batch_dice": 1}, "true or false"),
        ("dice", {"smooth": -1}, "at least 0"),
        ("dice_ce", {"ce_weight": "much"}, "a number"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        make_loss(name, options, 3)
