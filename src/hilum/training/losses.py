"""LOGITS + TRUTH -> ONE NUMBER: cross-entropy, soft Dice and their sum, at one or several resolutions.

Comes in: logits (B, K, ...) or a list of them, finest first, and class indices (B, ...) of the finest resolution.
Goes out: a scalar in fp32, however short the numbers were in which the network computed. Knows no network and no
labels by name. Legend: B batch, K classes (0 is background), N voxels.

A loss is a function and a row in ``LOSSES``; ``make_loss`` binds its options and adds deep supervision.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional as F

from hilum.errors import RecipeError

Logits = torch.Tensor | Sequence[torch.Tensor]


class Loss(Protocol):
    """What ``make_loss`` gives."""

    def __call__(self, logits: Logits, truth: torch.Tensor) -> torch.Tensor:
        """A scalar in fp32 to be made small."""
        ...


def cross_entropy(
    logits_BKN: torch.Tensor, truth_BN: torch.Tensor, *, class_weights: Sequence[float] | None = None
) -> torch.Tensor:
    """Mean cross-entropy over voxels; with class weights, the mean weighted by each voxel's true class."""
    weight = None if class_weights is None else logits_BKN.new_tensor(class_weights)
    return F.cross_entropy(logits_BKN, truth_BN, weight)


def soft_dice(
    logits_BKN: torch.Tensor, truth_BN: torch.Tensor, *, batch_dice: bool = True, smooth: float = 1e-5
) -> torch.Tensor:
    """One minus the mean soft Dice of the foreground classes (Milletari et al. 2016; nnU-Net's form).

    ``(2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)`` with the softmax p and the one-hot truth t.

    Args:
        logits_BKN: logits.
        truth_BN: class indices.
        batch_dice: sums run over the whole batch, so that a class which is absent from one patch is no lost cause
            (its Dice there would be 0 whatever the network does); False scores each patch by itself.
        smooth: keeps empty classes from dividing by zero.
    """
    return _dice(logits_BKN.softmax(1), truth_BN, batch_dice, smooth)


def dice_and_cross_entropy(
    logits_BKN: torch.Tensor,
    truth_BN: torch.Tensor,
    *,
    batch_dice: bool = True,
    smooth: float = 1e-5,
    ce_weight: float = 1.0,
    dice_weight: float = 1.0,
    class_weights: Sequence[float] | None = None,
) -> torch.Tensor:
    """Both, weighted; ``class_weights`` act on the cross-entropy."""
    log_p_BKN = logits_BKN.log_softmax(1)
    weight = None if class_weights is None else logits_BKN.new_tensor(class_weights)
    entropy = F.nll_loss(log_p_BKN, truth_BN, weight)
    return ce_weight * entropy + dice_weight * _dice(log_p_BKN.exp(), truth_BN, batch_dice, smooth)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "ce": cross_entropy,
    "dice": soft_dice,
    "dice_ce": dice_and_cross_entropy,
}


def make_loss(name: str, options: Mapping[str, Any], classes: int) -> Loss:
    """A loss of the registry with its options bound, over one or several resolutions.

    Args:
        name: of ``LOSSES``.
        options: its keyword arguments.
        classes: K, to check ``class_weights`` by.

    Raises:
        RecipeError: no such loss, an option it does not know, or class weights that are not K positive numbers.
    """
    if name not in LOSSES:
        raise RecipeError(f"no loss {name!r}", where="training.loss", wanted=f"one of {sorted(LOSSES)}")
    known = {
        key: p.default for key, p in inspect.signature(LOSSES[name]).parameters.items() if p.kind is p.KEYWORD_ONLY
    }
    for key, value in options.items():
        _check_option(name, key, value, known, classes)
    bound = dict(options)

    def one(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return LOSSES[name](logits.float().flatten(2), truth.long().flatten(1), **bound)

    def loss(logits: Logits, truth: torch.Tensor) -> torch.Tensor:
        if isinstance(logits, torch.Tensor):
            return one(logits, truth)
        scales = [(weight, x) for weight, x in zip(scale_weights(len(logits)), logits, strict=True) if weight]
        parts = [weight * one(x, shrunk(truth, x.shape[2:])) for weight, x in scales]
        return torch.stack(parts).sum()

    return loss


def scale_weights(count: int) -> list[float]:
    """1, 1/2, 1/4, ... without the coarsest (where there are several), summing to 1, as nnU-Net v2 has it."""
    raw = [2.0**-i for i in range(count)]
    if count > 1:
        raw[-1] = 0.0
    return [weight / sum(raw) for weight in raw]


def shrunk(truth: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Class indices (B, ...) at a coarser resolution: the voxel nearest to each coarse voxel's centre."""
    if tuple(truth.shape[1:]) == tuple(shape):
        return truth
    steps = [fine // coarse for fine, coarse in zip(truth.shape[1:], shape, strict=True)]
    return truth[(slice(None), *(slice(step // 2, None, step) for step in steps))]


def _dice(p_BKN: torch.Tensor, truth_BN: torch.Tensor, batch_dice: bool, smooth: float) -> torch.Tensor:
    # one mask a class and no one-hot array: a third of the memory, and the sums are pairwise, thus exact and repeatable
    both, truth = [], []
    for k in range(1, p_BKN.shape[1]):
        mask_BN = truth_BN == k
        both.append(torch.where(mask_BN, p_BKN[:, k], 0.0).sum(1))
        truth.append(mask_BN.sum(1))
    both_BK, truth_BK = torch.stack(both, 1), torch.stack(truth, 1).to(p_BKN.dtype)
    guess_BK = p_BKN[:, 1:].sum(2)
    if batch_dice:
        both_BK, truth_BK, guess_BK = both_BK.sum(0), truth_BK.sum(0), guess_BK.sum(0)
    return 1 - ((2 * both_BK + smooth) / (guess_BK + truth_BK + smooth)).mean()


def _check_option(name: str, key: str, value: Any, known: Mapping[str, Any], classes: int) -> None:
    where = "training.loss_options"
    if key not in known:
        raise RecipeError(f"loss {name!r} has no option {key!r}", where=where, wanted=f"one of {sorted(known)}")
    if key == "class_weights":
        good = isinstance(value, list | tuple) and len(value) == classes and all(_number(x) and x >= 0 for x in value)
        if not good or not sum(value) > 0:
            raise RecipeError(
                f"class_weights = {value!r}", where=where, wanted=f"{classes} numbers of at least 0, background first"
            )
    elif isinstance(known[key], bool):
        if not isinstance(value, bool):
            raise RecipeError(f"{key} = {value!r}", where=where, wanted="true or false")
    elif not _number(value) or value < 0:
        raise RecipeError(f"{key} = {value!r}", where=where, wanted="a number of at least 0")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
