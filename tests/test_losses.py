from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import RecipeError
from hilum.training.losses import LOSSES, Loss, check_loss, inverse_frequencies, make_loss, scale_weights, shrunk

# what each loss is tried with; all others as they are
OPTIONS: dict[str, dict[str, object]] = {
    "weighted_ce": {"weights": [1, 2, 3]},
    "dice_ce": {"batch_dice": False, "class_weights": [1, 2, 3]},
    "focal": {"class_weights": [1, 2, 3]},
    "top_k": {"share": 0.3},
    "unified_focal": {"asymmetric": False},
    "sum": {"terms": {"dice": 1.0, "focal": 0.5, "boundary": 0.1}, "options": {"focal": {"gamma": 3}}},
}
NAMES = [*sorted(LOSSES), "sum"]


def made(name: str, classes: int = 3) -> Loss:
    return make_loss(name, OPTIONS.get(name, {}), classes)


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


# two voxels and three classes whose softmax is read off: p = (1/2, 1/4, 1/4) and (1/8, 3/4, 1/8); truth 0 and 1
P = torch.tensor([[[1 / 2, 1 / 8], [1 / 4, 3 / 4], [1 / 4, 1 / 8]]])
TRUTH = torch.tensor([[0, 1]])
# sums over both voxels, class by class: of p where the class is, of p, of the truth
BOTH, GUESS, THERE = (1 / 2, 3 / 4, 0), (5 / 8, 1, 3 / 8), (1, 1, 0)


def index(k: int, fp: float, fn: float, smooth: float = 0.0) -> float:
    return (BOTH[k] + smooth) / (BOTH[k] + fp * (GUESS[k] - BOTH[k]) + fn * (THERE[k] - BOTH[k]) + smooth)


def sigmoid_entropy() -> float:
    terms = [
        math.log1p(1 / x) if right else math.log1p(x)
        for x, right in zip(
            (1 / 2, 1 / 8, 1 / 4, 3 / 4, 1 / 4, 1 / 8), (True, False, False, True, False, False), strict=True
        )
    ]
    return sum(terms) / 6


def sigmoid_dice() -> float:
    s = {x: x / (1 + x) for x in (1 / 4, 3 / 4, 1 / 8)}
    return 2 * s[3 / 4] / (s[1 / 4] + s[3 / 4] + 1) / 2  # class 1; class 2 has none


LN2, LN43 = math.log(2), math.log(4 / 3)
WORKED: list[tuple[str, dict[str, object], float]] = [
    ("ce", {}, (LN2 + LN43) / 2),
    ("weighted_ce", {"weights": [1, 3, 5]}, (LN2 + 3 * LN43) / 4),
    ("dice", {"smooth": 0}, 1 - (2 * 0.75 / 2 + 0) / 2),
    ("batch_dice", {"smooth": 0}, 1 - (2 * 0.75 / 2 + 0) / 2),
    ("dice_bce", {"smooth": 0}, sigmoid_entropy() + 1 - sigmoid_dice()),
    ("dice_bce", {"smooth": 0, "bce_weight": 2, "dice_weight": 0}, 2 * sigmoid_entropy()),
    ("tversky", {"smooth": 0}, 1 - index(1, 0.3, 0.7) / 2),
    ("tversky", {"smooth": 0, "alpha": 0.5, "beta": 0.5}, 1 - (2 * 0.75 / 2 + 0) / 2),
    ("focal", {}, (LN2 / 4 + LN43 / 16) / 2),
    ("focal", {"gamma": 1, "class_weights": [1, 8, 1]}, (LN2 / 2 + 8 * LN43 / 4) / 2),
    ("focal_tversky", {"smooth": 0}, ((1 - index(1, 0.3, 0.7)) ** 0.75 + 1) / 2),
    # weights 1 for both classes that are there, and for the absent one that of a single voxel
    ("generalised_dice", {"smooth": 0}, 1 - 2 * (1 / 2 + 3 / 4) / (5 / 8 + 1 + 1 + 1 + 3 / 8)),
    ("top_k", {"share": 0.5}, LN2),
    ("top_k", {"share": 1}, (LN2 + LN43) / 2),
    (
        "unified_focal",
        {"smooth": 0, "weight": 0.25},
        0.25 * (0.4 * 0.5**0.5 * LN2 + 0.6 * LN43) / 2
        + 0.75 * (1 - index(0, 0.4, 0.6) + (1 - index(1, 0.4, 0.6)) ** 0.5 + 1) / 3,
    ),
    (
        "unified_focal",
        {"smooth": 0, "asymmetric": False, "gamma": 0.75, "delta": 0.7, "weight": 0.5},
        0.5 * (0.3 * 0.5**0.75 * LN2 + 0.7 * 0.25**0.75 * LN43) / 2
        + 0.5 * ((1 - index(0, 0.3, 0.7)) ** 0.25 + (1 - index(1, 0.3, 0.7)) ** 0.25 + 1) / 3,
    ),
    (
        "sum",
        {"terms": {"dice": 2, "focal": 0.5}, "options": {"dice": {"smooth": 0}, "focal": {"gamma": 0}}},
        2 * (1 - 0.75 / 2) + 0.5 * (LN2 + LN43) / 2,
    ),
]


@pytest.mark.parametrize(("name", "options", "wanted"), WORKED)
def test_more_worked_numbers(name: str, options: dict[str, object], wanted: float) -> None:
    assert make_loss(name, options, 3)(P.log(), TRUTH).item() == pytest.approx(wanted, rel=1e-5)


def test_boundary_by_hand() -> None:
    # a row of six voxels, class 1 at the 2nd to 4th: phi = 1 (0 -1 0) 1 2; class 2 is absent: 0
    p = torch.tensor([0.1, 0.5, 0.9, 0.6, 0.2, 0.3])
    logits = torch.stack((1 - p - 0.05, p, torch.full((6,), 0.05)))[None].log()
    truth = torch.tensor([[0, 1, 1, 1, 0, 0]])
    wanted = (0.1 + 0 - 0.9 + 0 + 0.2 + 2 * 0.3) / 12
    assert make_loss("boundary", {}, 3)(logits, truth).item() == pytest.approx(wanted, rel=1e-5)
    # in space, distances run along diagonals too; a class that fills its patch has no surface
    corner = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    corner[0, 0, 0, 0] = 1
    certain = torch.full((1, 2, 4, 4, 4), -40.0)
    certain[0, 0], certain[0, 1, 3, 3, 3], certain[0, 0, 3, 3, 3] = 40.0, 40.0, -40.0
    assert make_loss("boundary", {}, 2)(certain, corner).item() == pytest.approx(27**0.5 / 64, rel=1e-5)
    assert make_loss("boundary", {}, 2)(certain, torch.ones_like(corner)).item() == 0


def test_inverse_frequencies() -> None:
    assert inverse_frequencies([50, 25, 25]) == pytest.approx([2 / 3, 4 / 3, 4 / 3])
    assert inverse_frequencies([75, 25, 0]) == pytest.approx([2 / 3, 2, 0])
    asked = []

    def counts() -> list[int]:
        asked.append(1)
        return [900, 75, 25]

    for name, options in (("weighted_ce", {}), ("ce", {"class_weights": "inverse_frequency"})):
        by_counts = make_loss(name, options, 3, counts)
        by_hand = make_loss("ce", {"class_weights": [1 / 900, 1 / 75, 1 / 25]}, 3)
        logits, truth = draw()
        assert by_counts(logits, truth).item() == pytest.approx(by_hand(logits, truth).item(), rel=1e-5)
    inside_a_sum = make_loss("sum", {"terms": {"weighted_ce": 1, "dice": 1}}, 3, counts)
    assert inside_a_sum(*draw()).isfinite() and len(asked) == 3
    make_loss("dice_ce", {}, 3, counts)
    check_loss("weighted_ce", {}, 3)  # what the recipe says can be checked before any case is read
    assert len(asked) == 3


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
    for name, function in LOSSES.items():
        for more in ({}, {"asymmetric": False}) if name == "unified_focal" else ({},):
            options = {key: x for key, x in OPTIONS.get(name, {}).items() if key != "asymmetric"} | more
            assert torch.autograd.gradcheck(
                lambda x, f=function, o=options: f(x, truth, **o), logits.double().requires_grad_()
            ), name


@pytest.mark.parametrize("name", NAMES)
class TestEveryLoss:
    def test_is_small_when_right_and_large_when_wrong(self, name: str) -> None:
        _, truth = draw()
        right = torch.nn.functional.one_hot(truth, 3).movedim(-1, 1) * 80.0 - 40
        loss = made(name)
        best, worst = loss(right, truth).item(), loss(-right, truth).item()
        if name in ("boundary", "sum"):  # a distance inside is negative: nothing better than right, but no 0
            assert best < min(0.01, worst) and worst > 0.3
        else:
            assert 0 <= best < 1e-3 and worst > 0.5

    def test_falls_to_right_answers(self, name: str) -> None:
        logits, truth = draw((2, 3, 6, 6))
        logits.requires_grad_()
        optimizer, loss = torch.optim.Adam([logits], 0.2), made(name)
        first = loss(logits, truth).item()
        for _ in range(60):
            optimizer.zero_grad()
            loss(logits, truth).backward()
            optimizer.step()
        assert loss(logits, truth).item() < first
        # a voxel on the surface has distance 0: the boundary alone does not ask for it
        assert name == "boundary" or (logits.argmax(1) == truth).float().mean() > 0.9

    def test_takes_uint8_and_int64_and_short_logits_and_answers_in_fp32(self, name: str) -> None:
        logits, truth = draw()
        loss = made(name)
        assert torch.equal(loss(logits, truth), loss(logits, truth.to(torch.uint8)))
        short = loss(logits.bfloat16(), truth)
        assert short.dtype == torch.float32
        assert torch.equal(short, loss(logits.bfloat16().float(), truth))

    def test_a_patch_of_background_alone_gives_finite_gradients(self, name: str) -> None:
        logits, truth = draw()
        logits.requires_grad_()
        made(name)(logits, torch.zeros_like(truth)).backward()
        assert bool(logits.grad.isfinite().all())

    def test_deep_supervision_is_the_weighted_sum(self, name: str) -> None:
        logits, truth = draw((2, 3, 4, 8, 8))
        half, quarter = draw((2, 3, 4, 4, 4))[0], draw((2, 3, 2, 2, 2))[0]
        loss = made(name)
        expected = loss(logits, truth) * 2 / 3 + loss(half, truth[:, :, 1::2, 1::2]) / 3
        assert loss([logits, half, quarter], truth).item() == pytest.approx(expected.item(), rel=1e-6)

    def test_works_in_2d(self, name: str) -> None:
        logits, truth = draw((2, 3, 8, 8))
        flat = made(name)(logits, truth)
        deep = made(name)(logits[:, :, None], truth[:, None])
        assert flat.item() == pytest.approx(deep.item())

    def test_unknown_options_are_refused(self, name: str) -> None:
        with pytest.raises(RecipeError, match=r"no option 'warmth'|'sum' with"):
            make_loss(name, {"warmth": 2}, 3)


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
        ("vocal", {}, "one of .*'focal'.*'sum'"),
        ("weighted_ce", {"weights": "by_feeling"}, "inverse_frequency"),
        ("weighted_ce", {"weights": [1, 2]}, "3 numbers"),
        ("top_k", {"share": 0}, "above 0 and at most 1"),
        ("top_k", {"share": 10}, "at most 1"),
        ("unified_focal", {"gamma": 2}, "at most 1"),
        ("focal_tversky", {"gamma": 0}, "above 0"),
        ("focal", {"gamma": float("inf")}, "at least 0"),
        ("sum", {}, "terms ="),
        ("sum", {"terms": {}}, "terms ="),
        ("sum", {"terms": {"dice": 1}, "weights": {}}, "terms ="),
        ("sum", {"terms": {"rice": 1}}, "no loss 'rice'"),
        ("sum", {"terms": {"sum": 1}}, "no loss 'sum'"),
        ("sum", {"terms": {"dice": 0}}, "above 0"),
        ("sum", {"terms": {"dice": "all"}}, "above 0"),
        ("sum", {"terms": {"dice": 1}, "options": {"focal": {}}}, "one of the terms"),
        ("sum", {"terms": {"dice": 1}, "options": {"dice": 3}}, "a table"),
        ("sum", {"terms": {"dice": 1}, "options": {"dice": {"gamma": 3}}}, "no option 'gamma'"),
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
