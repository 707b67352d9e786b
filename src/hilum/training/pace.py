"""HOW FAST, HOW FAR, HOW STEADY: the clock of a run, its forecast, and losses that jump.

Comes in: seconds of steps, losses. Goes out: how much of the run is over, a forecast for one fold and for all, a word
when a loss is far off. Knows no network and no files.
"""

from __future__ import annotations

import time
from collections import deque
from statistics import median
from typing import Any

from hilum.config import Recipe, seconds_of
from hilum.progress import clock

_FORGOTTEN = 0.99  # a slow first step is forgotten over the next hundred
_FORECAST_STEPS, _FORECAST_SECONDS = 10, 20.0  # a forecast waits for both, or for the end of the first epoch
_FORECAST_LATEST = 60.0  # but where steps are slow, no longer than that and one step: it is promised in two minutes
_FIRST = 3  # steps that warm up and say nothing
_STEADY, _MEMORY = 20, 50  # losses that a jump is measured against: at least, at most
_JUMP = 8.0  # deviations; at a hundred thousand steps chance alone reaches 4.5


class Pace:
    """The clock of a run that may be interrupted and go on.

    Args:
        recipe: its steps, its budget, its number of folds, what an hour costs.
        first_networks: of one of a cascade's first networks: how many the run trains; they then stand for the folds.

    Attributes:
        steps: where the run ends.
        budget: seconds after which it ends, or None.
        before: seconds spent by earlier parts of the run.
        longest: seconds of the longest recent step.
    """

    def __init__(self, recipe: Recipe, first_networks: int = 0):
        self.steps, self.budget = recipe.training.total_steps, seconds_of(recipe.training.budget)
        self.kind = "first network" if first_networks else "fold"
        self.folds, self.cost_per_hour = first_networks or recipe.data.folds, recipe.training.cost_per_hour
        self.before = self.longest = 0.0
        self._start = time.monotonic()
        self._steps: list[float] = []
        self._told = False

    @property
    def seconds(self) -> float:
        """Time spent training, over all parts of the run."""
        return self.before + time.monotonic() - self._start

    def start(self) -> None:
        """The first step begins now."""
        self._start = time.monotonic()

    def done(self, step: int) -> float:
        """How much of the run is over, 0 to 1: by steps or by budget, whichever is further."""
        by_time = self.seconds / self.budget if self.budget else 0.0
        return max(step / self.steps, by_time)

    def is_over(self, step: int, last_look: float = 0.0) -> bool:
        """Whether the steps are taken, or another one and a last look might not end within the budget."""
        if step >= self.steps:
            return True
        return self.budget is not None and self.seconds + self.longest + last_look >= self.budget

    def took(self, seconds: float) -> None:
        """One step more."""
        self.longest = max(self.longest * _FORGOTTEN, seconds)
        if len(self._steps) < _FIRST + 1000:
            self._steps.append(seconds)

    def left(self, step: int, step_seconds: float) -> float:
        """Seconds until the end, if a step takes as long as now."""
        by_steps = step_seconds * (self.steps - step)
        return max(0.0, min(by_steps, self.budget - self.seconds) if self.budget else by_steps)

    def forecast(self, step: int, epoch_ended: bool) -> dict[str, Any] | None:
        """Once, as soon as it means something: steps, seconds and cost of this fold and of all of them."""
        steady = self._steps[_FIRST:] or self._steps
        enough = len(self._steps) >= _FORECAST_STEPS and (sum(self._steps) >= _FORECAST_SECONDS or epoch_ended)
        if self._told or not (enough or sum(self._steps) >= _FORECAST_LATEST):
            return None
        self._told = True
        each = sum(steady) / len(steady)
        whole = self.seconds + self.left(step, each)
        answer: dict[str, Any] = {
            "step_seconds": round(each, 4),
            "steps": min(self.steps, step + round((whole - self.seconds) / each)),
            "fold_seconds": round(whole, 1),
            "kind": self.kind,
            "folds": self.folds,
            "all_folds_seconds": round(whole * self.folds, 1),
        }
        if self.cost_per_hour:
            answer["fold_cost"] = round(whole / 3600 * self.cost_per_hour, 2)
            answer["all_folds_cost"] = round(answer["all_folds_seconds"] / 3600 * self.cost_per_hour, 2)
        return answer


def say_forecast(forecast: dict[str, Any]) -> str:
    """The forecast as a sentence."""
    cost = [f", costing {forecast[key]:g}" if key in forecast else "" for key in ("fold_cost", "all_folds_cost")]
    more = "full inference on the held-out cases" if forecast["kind"] == "fold" else "the second network"
    return (
        f"Forecast: {forecast['steps']} steps of {forecast['step_seconds']:.2f} s, "
        f"{clock(forecast['fold_seconds'])} for this {forecast['kind']}{cost[0]}, "
        f"{clock(forecast['all_folds_seconds'])} for all {forecast['folds']}{cost[1]}; "
        f"{more} comes on top"
    )


class Spikes:
    """Losses far above those before them: a label map gone wrong, a learning rate too high, numbers too short."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=_MEMORY)

    def add(self, loss: float) -> float | None:
        """Take in a loss; how many deviations it lies above the recent median, if that is a jump, else None."""
        jump = None
        if len(self._losses) >= _STEADY:
            middle = median(self._losses)
            # the median absolute deviation, scaled to a normal's standard deviation; a twentieth of the loss at least
            spread = max(1.4826 * median(abs(x - middle) for x in self._losses), 0.05 * abs(middle), 1e-6)
            above = (loss - middle) / spread
            jump = above if above > _JUMP else None
        self._losses.append(loss)
        return jump
