"""WHAT A RUN SAYS OF ITSELF: the head of its log, the card of its model, its line after each epoch.

Comes in: a set-up run and its numbers. Goes out: JSON-able tables and a sentence. Knows no clock and no tensors.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hilum import __version__
from hilum.config import Recipe
from hilum.prepare.low_resolution import patch_share
from hilum.progress import clock
from hilum.training.setup import RunSetup

SYNTHETIC = "synthetic training data only: of no use on real scans"


def run_facts(recipe: Recipe, setup: RunSetup, fold: str, commit: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """What the log begins with."""
    return {
        "hilum": __version__,
        "commit": commit,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "recipe": recipe.name,
        "network": setup.spec.name,
        "patch": list(setup.plan.patch),
        "batch": setup.plan.batch,
        "accumulate": recipe.training.accumulate,
        "spacing_mm": list(setup.plan.spacing_mm),
        "patch_share_of_median_case": round(patch_share(setup.plan), 4),
        "steps": recipe.training.total_steps,
        "fold": fold,
        "training": list(setup.training),
        "held_out": list(setup.held_out),
        **more,
    }


def model_card(
    recipe: Recipe, setup: RunSetup, fold: str, commit: str, log: Sequence[Mapping[str, Any]], more: Mapping[str, Any]
) -> dict[str, Any]:
    """What the model folder says for people."""
    last: Mapping[str, Any] = next((line for line in reversed(log) if "epoch" in line), {})
    scores = [line["true_dice"] for line in log if line.get("true_dice")]
    return {
        "description": recipe.description,
        "recipe": recipe.name,
        "trained_on": {"dataset": recipe.data.dataset, "cases": list(setup.training)},
        "held_out": list(setup.held_out),
        "fold": fold,
        "loss": last.get("loss"),
        "patch_dice": last.get("patch_dice"),
        **({"true_dice_in_training": scores[-1]} if scores else {}),
        **({"stage_before": dict(setup.before)} if setup.before else {}),
        "hilum": __version__,
        "commit": commit,
        **more,
        "warning": "Research use only, not a medical device"
        + (f"; {SYNTHETIC}" if recipe.data.dataset == "phantom" else ""),
    }


def epoch_sentence(line: Mapping[str, Any]) -> str:
    """The line of an epoch for the terminal."""
    parts = [f"loss {line['loss']:.4f}"]
    true = line.get("true_dice")
    if true:
        parts.append(f"true Dice {_scores(true['dice'])} ({len(true['cases'])} whole cases)")
    if line.get("patch_dice"):
        parts.append(f"patch Dice {_scores(line['patch_dice'])}")
    parts.append(f"{line['epoch_seconds']:.1f} s, waited for data {100 * line['data_wait']:.1f} %")
    parts.append(f"{line['patches_per_second']:.2f} patches/s")
    if line.get("peak_memory_gb") is not None:
        parts.append(f"{line['peak_memory_gb']:.1f} GB")
    parts.append(f"{clock(line['time_left_s'])} left")
    return f"Epoch {line['epoch']}: " + "; ".join(parts)


def _scores(by_name: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {'none' if value is None else format(value, '.3f')}" for name, value in by_name.items())
