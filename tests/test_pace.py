"""The clock of a run, its forecast, and losses that jump."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from hilum.config import recipe_from
from hilum.training.pace import Pace, Spikes, say_forecast


def pace(first_networks: int = 0, **training: Any) -> Pace:
    return Pace(recipe_from({"labels": "kits", "data": {"folds": 5}, "training": training}), first_networks)


def test_epochs_are_steps() -> None:
    assert pace(epochs=5, epoch_steps=50).steps == 250
    assert pace(steps=7).steps == 7
    assert pace(steps=10).done(4) == 0.4 and not pace(steps=10).is_over(9) and pace(steps=10).is_over(10)


def test_a_forecast_leaves_out_the_first_steps_and_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = pace(steps=1000, cost_per_hour=3.6)
    for step, seconds in enumerate([30.0, 10.0, 5.0, *[2.0] * 12], 1):
        now[0] += seconds
        clock.took(seconds)
        told = clock.forecast(step, epoch_ended=False)
        assert (told is not None) == (step == 10)  # ten steps, and more than 20 s
        if told:
            assert told["step_seconds"] == 2.0 and told["folds"] == 5
            assert told["fold_seconds"] == pytest.approx(59 + 990 * 2)  # what was, and what is left
            assert told["all_folds_seconds"] == pytest.approx(5 * told["fold_seconds"])
            assert told["fold_cost"] == pytest.approx(2.04, abs=0.01)
            assert "34 min 04 s for this fold, costing 2.04" in say_forecast(told).replace("33 min 59", "34 min 04")


@pytest.mark.parametrize(("step_seconds", "after"), [(1.0, 20), (5.0, 10), (11.0, 6), (45.0, 2), (59.0, 2), (90.0, 1)])
def test_a_forecast_is_told_in_two_minutes(monkeypatch: pytest.MonkeyPatch, step_seconds: float, after: int) -> None:
    """Ten steps of 30 s would be five minutes."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = pace(steps=1000)
    for step in range(1, after + 1):
        now[0] += step_seconds
        clock.took(step_seconds)
        told = clock.forecast(step, epoch_ended=False)
        assert (told is not None) == (step == after)
    assert now[0] < 120 and told is not None and told["fold_seconds"] == pytest.approx(1000 * step_seconds)


def test_the_first_networks_of_a_cascade_are_forecast_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = pace(first_networks=3, steps=100)
    now[0] = 70.0
    clock.took(70.0)
    told = clock.forecast(1, epoch_ended=False)
    assert told is not None and told["all_folds_seconds"] == pytest.approx(3 * 7000)
    assert "1 h 56 min for this first network, 5 h 50 min for all 3; the second network" in say_forecast(told)


def test_with_a_budget_the_forecast_is_how_many_steps_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = pace(steps=100_000, budget="200s")
    told = None
    for step in range(1, 11):
        now[0] += 2.0
        clock.took(2.0)
        told = clock.forecast(step, epoch_ended=True)
    assert told is not None and told["steps"] == 100 and told["fold_seconds"] == pytest.approx(200)


def test_a_loss_that_jumps_is_told_and_one_that_wanders_is_not() -> None:
    rng, spikes = np.random.default_rng(0), Spikes()
    steady = [spikes.add(float(x)) for x in 1.0 * 0.995 ** np.arange(400) + rng.normal(0, 0.05, 400)]
    assert steady == [None] * 400
    jump = spikes.add(3.0)
    assert jump is not None and jump > 8
    assert spikes.add(0.15) is None
    assert Spikes().add(1e6) is None  # nothing to measure the first losses against
