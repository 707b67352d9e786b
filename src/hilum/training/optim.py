"""GRADIENTS -> BETTER WEIGHTS: optimisers, learning-rate schedules, averaged weights.

Comes in: a network's parameters and the recipe's training options. Goes out: an optimiser, the learning rate at a
point of the run, averaged weights. Knows no data and no clock: how far the run is arrives as a fraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from hilum.config import TrainingOptions
from hilum.errors import RecipeError

AUTO = "auto"  # training.optimizer: the run's length decides (``settled``, ``choosing``)
DECIDED = ("optimizer", "learning_rate", "weight_decay", "momentum", "warmup_steps", "ema")
SHORT_STEPS = 10_000
_USUAL = TrainingOptions()


def sgd(network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, all parameters decayed, as nnU-Net v2 trains."""
    momentum = _momentum(options, 0.99)
    return torch.optim.SGD(
        network.parameters(),
        lr=options.learning_rate,
        momentum=momentum,
        nesterov=momentum > 0,
        weight_decay=options.weight_decay,
    )


def adamw(network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019); scales and biases, which hold no capacity, are not decayed."""
    betas = (_momentum(options, 0.9), 0.999)
    return torch.optim.AdamW(_groups(network, options.weight_decay), lr=options.learning_rate, betas=betas)


def adam(network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015) with its L2 penalty on kernels."""
    betas = (_momentum(options, 0.9), 0.999)
    return torch.optim.Adam(_groups(network, options.weight_decay), lr=options.learning_rate, betas=betas)


OPTIMIZERS: dict[str, Callable[[nn.Module, TrainingOptions], torch.optim.Optimizer]] = {
    "sgd": sgd,
    "adamw": adamw,
    "adam": adam,
}


def _momentum(options: TrainingOptions, usual: float) -> float:
    return usual if options.momentum < 0 else options.momentum


def settled(options: TrainingOptions, steps: int) -> TrainingOptions:
    """Options whose optimiser is "auto" with what suits a run of so many steps; others as they are.

    From ``SHORT_STEPS`` on it is SGD as nnU-Net's, below it AdamW with a warm-up over the first fiftieth of the run and
    weights averaged over about its last twentieth.
    """
    if options.optimizer != AUTO:
        return options
    if steps >= SHORT_STEPS:
        return replace(options, optimizer="sgd")
    return replace(
        options,
        optimizer="adamw",
        learning_rate=0.003,
        weight_decay=0.01,
        warmup_steps=max(1, steps // 50),
        ema=round(1 - 1 / max(10.0, 0.05 * steps), 5),
    )


def poly(done: float) -> float:
    """``(1 - done)^0.9``: nnU-Net's, from Chen et al. 2017 (DeepLab)."""
    return float((1 - done) ** 0.9)


def cosine(done: float) -> float:
    """Half a cosine, 1 to 0 (Loshchilov and Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def plateau(done: float, cooldown: float = 0.2) -> float:
    """1, then ``1 - sqrt(x)`` over the last ``cooldown`` share of the run, x from 0 to 1 (Haegele et al. 2024).

    arXiv 2405.18392 finds it as good as a cosine of the same length; what comes before the fall does not depend on the
    length, so that a run may be extended from there.
    """
    return 1.0 if done <= 1 - cooldown else 1 - math.sqrt(min(1.0, (done - (1 - cooldown)) / cooldown))


def constant(done: float) -> float:
    """Always 1; for averaged weights, and for runs that may be stretched later."""
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {
    "poly": poly,
    "cosine": cosine,
    "plateau": plateau,
    "constant": constant,
}


def make_optimizer(network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """The optimiser that the recipe names, over all of a network's parameters."""
    check_options(options)
    return OPTIMIZERS[options.optimizer](network, options)


def check_options(options: TrainingOptions) -> None:
    """Refuse, before anything is computed, what cannot train.

    Raises:
        RecipeError: no such optimiser or schedule, or numbers out of bounds.
    """
    for key, known in (("optimizer", [*OPTIMIZERS, AUTO]), ("schedule", list(SCHEDULES))):
        if getattr(options, key) not in known:
            raise RecipeError(f"no {key} {getattr(options, key)!r}", where=f"training.{key}", wanted=f"one of {known}")
    for key, good, wanted in (
        ("steps", options.steps >= 1, "a number of at least 1"),
        ("epoch_steps", options.epoch_steps >= 1, "a number of at least 1"),
        ("epochs", options.epochs >= 0, "a number of at least 1, or 0 to go by steps"),
        ("accumulate", options.accumulate >= 1, "a number of at least 1"),
        ("cooldown", 0 < options.cooldown <= 1, "a share of the run above 0, at most 1"),
        ("validation_cases", options.validation_cases >= 0, "a number of at least 0"),
        ("validation_share", 0 <= options.validation_share < 1, "a share from 0 (off) to below 1"),
        ("patience", options.patience >= 0, "a number of at least 0 (off)"),
        ("cost_per_hour", 0 <= options.cost_per_hour < math.inf, "a number of at least 0"),
        ("learning_rate", 0 < options.learning_rate < math.inf, "a number above 0"),
        ("weight_decay", 0 <= options.weight_decay < math.inf, "a number of at least 0"),
        ("momentum", options.momentum < 1, "a number from 0 to below 1, or -1 for the optimiser's usual one"),
        ("ema", 0 <= options.ema < 1, "0 (off), or a number below 1 such as 0.999"),
        ("clip_norm", options.clip_norm >= 0, "0 (off), or a number above 0"),
        ("warmup_steps", options.warmup_steps >= 0, "a number of at least 0"),
        ("checkpoint_minutes", options.checkpoint_minutes >= 0, "a number of at least 0"),
    ):
        if not good:
            raise RecipeError(f"{getattr(options, key)}", where=f"training.{key}", wanted=wanted)
    own = [key for key in DECIDED[1:] if getattr(options, key) != getattr(_USUAL, key)]
    if options.optimizer == AUTO and own:
        raise RecipeError(
            f"{getattr(options, own[0])} beside optimizer = {AUTO!r}, which decides it",
            where=f"training.{own[0]}",
            wanted=f"training.optimizer as well: one of {list(OPTIMIZERS)}",
            fix=f"add --set training.optimizer=adamw or sgd, or leave {own[0]} out",
        )
    if _wants_scores(options) and not options.validation_cases:
        raise RecipeError(
            f"keep = {options.keep!r} and patience = {options.patience} without a true score to go by",
            where="training.validation_cases",
            wanted="a number of at least 1",
        )


def check_fold(options: TrainingOptions, fold: int | str) -> None:
    """Refuse to choose weights by held-out cases where none are held out.

    Raises:
        RecipeError: naming the keys.
    """
    if _wants_scores(options) and str(fold) == "all":
        raise RecipeError(
            f"keep = {options.keep!r} and patience = {options.patience} with fold 'all', which holds no case out",
            where="training.keep",
            wanted="'last', and patience = 0",
            fix="or hold one fold out (--fold 0)",
        )


def _wants_scores(options: TrainingOptions) -> bool:
    return options.patience > 0 or options.keep == "best"


def learning_rate(options: TrainingOptions, step: int, done: float) -> float:
    """The rate for a step.

    Args:
        options: base rate, schedule, warm-up.
        step: steps taken before this one; the rate grows linearly over the first ``warmup_steps``.
        done: how much of the run is over, 0 to 1: by steps, or by seconds where the run has a budget.
    """
    warm = min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    done = min(1.0, max(0.0, done))
    fall = plateau(done, options.cooldown) if options.schedule == "plateau" else SCHEDULES[options.schedule](done)
    return options.learning_rate * warm * fall


class AveragedWeights:
    """Exponential moving average of a network's weights: what a noisy run would have settled on.

    The decay grows to its final value as ``(1 + t) / (10 + t)``, so that the first weights are soon forgotten.

    Args:
        network: whose weights are followed.
        decay: final decay, 0 to below 1.
    """

    def __init__(self, network: nn.Module, decay: float):
        assert 0 < decay < 1, decay
        self.decay, self.updates = decay, 0
        self.tensors = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's present weights."""
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                self.tensors[key].lerp_(value, 1 - keep)
            else:
                self.tensors[key].copy_(value)

    def load(self, tensors: Mapping[str, torch.Tensor], updates: int) -> None:
        """Go on from a checkpoint."""
        self.updates = updates
        for key, value in self.tensors.items():
            value.copy_(tensors[key])


def _groups(network: nn.Module, decay: float) -> list[dict[str, object]]:
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
