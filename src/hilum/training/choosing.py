"""HOW MANY STEPS -> HOW TO LEARN: what ``training.optimizer = "auto"`` stands for.

Comes in: a recipe and how many steps its run has, which a budget of time says by the seconds of its first few. Goes
out: the recipe with optimiser, rate, weight decay, warm-up and averaging written out. A run chooses once, when it
begins; gone on with or extended, it stays as it was begun.

Long runs learn as nnU-Net's do: SGD with Nesterov momentum 0.99 at a rate of 0.01, which had found no tumour after 500
and 1000 steps of a small network. AdamW with averaged weights had after 500 (docs/log.md, 2026-11-21). Where the two
meet was not measured; ``SHORT_STEPS``, 40 of nnU-Net's 1000 epochs, keeps AdamW to runs that are far shorter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from hilum.config import Recipe, TrainingOptions, recipe_from, seconds_of
from hilum.patches.batches import Batches
from hilum.progress import Progress
from hilum.training.optim import AUTO, DECIDED, SHORT_STEPS, settled
from hilum.training.ranks import Ranks
from hilum.training.setup import RunSetup
from hilum.training.trainer import Trainer

_TRIED, _TRIED_SHARE = 5, 0.02  # steps that are timed: so many, begun within that share of the budget


def wants_choice(recipe: Recipe) -> bool:
    """Whether hilum is to choose the optimiser."""
    return recipe.training.optimizer == AUTO


def as_begun(recipe: Recipe, facts: Mapping[str, Any] | None) -> Recipe:
    """The recipe; one that leaves the choice open, with what its run chose when it began.

    Args:
        recipe: this run's.
        facts: its checkpoint's, None before the first.
    """
    if facts is None or not wants_choice(recipe):
        return recipe
    begun = recipe_from(facts["recipe"]).training
    return replace(recipe, training=replace(recipe.training, **{key: getattr(begun, key) for key in DECIDED}))


def choose(recipe: Recipe, setup: RunSetup, device: torch.device, ranks: Ranks, progress: Progress) -> Recipe:
    """The recipe with the optimiser that suits the run's length, which is said.

    Args:
        recipe: one that leaves the choice open.
        setup: what was decided before the first step.
        device: where to compute.
        ranks: who else trains the same network; rank 0's clock counts.
        progress: where to say what was chosen.

    Raises:
        TrainingError: a first step cannot be taken (as in the run itself).
    """
    training = recipe.training
    budget = seconds_of(training.budget)
    fits = round(budget / _step_seconds(recipe, setup, device, budget)) if budget else training.total_steps
    (steps,) = ranks.agree(min(fits, training.total_steps))
    chosen = replace(recipe, training=settled(training, max(1, int(steps))))
    progress.say(_said(chosen.training, int(steps), training.budget))
    return chosen


def _step_seconds(recipe: Recipe, setup: RunSetup, device: torch.device, budget: float) -> float:
    """Seconds of the quickest of a few steps of a network that is then forgotten, its batches made too."""
    trainer, count = Trainer(setup, recipe, device), recipe.training.accumulate
    seconds: list[float] = []
    common = (setup.plan, recipe.patches, setup.scheme, device, recipe.training.seed)
    begin = time.monotonic()
    with Batches(setup.store, setup.training, *common, earlier=setup.earlier) as batches:
        while len(seconds) < _TRIED and (not seconds or time.monotonic() - begin < _TRIED_SHARE * budget):
            asked, first = time.monotonic(), len(seconds) * count
            trainer.learn([batches.batch(first + k) for k in range(count)], 0.0)
            seconds.append(time.monotonic() - asked)
    return min(seconds)


def _said(options: TrainingOptions, steps: int, budget: str) -> str:
    fits = f"about {steps} steps fit in {budget}" if budget else f"{steps} steps"
    if options.optimizer == "sgd":
        return f"Optimiser: {fits}, a long run: SGD, rate {options.learning_rate:g} (training.optimizer = auto)"
    return (
        f"Optimiser: {fits}, fewer than {SHORT_STEPS}: AdamW, rate {options.learning_rate:g}, warm-up of "
        f"{options.warmup_steps} steps, weights averaged with {options.ema:g} (training.optimizer = auto)"
    )
