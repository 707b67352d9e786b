"""WHAT OPTUNA IS ASKED, in its own words: a space's values, samplers, pruners, importance.

Comes in: the ``[tune]`` table. Goes out: Optuna's objects and answers. Optuna is imported here, when it is asked for.
"""

from __future__ import annotations

import json
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hilum.errors import UsageError
from hilum.study.design import Choices, Range, Tune

if TYPE_CHECKING:
    import optuna


def optuna_library() -> ModuleType:
    """Optuna itself.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UsageError(
            "tuning needs Optuna, which is not installed", fix="pip install 'hilum[tune]', or remove the [tune] table"
        ) from None
    return optuna


def suggest(trial: optuna.trial.Trial, key: str, space: Range | Choices) -> Any:
    """A trial's value of one key."""
    if isinstance(space, Choices):
        # Optuna's choices are texts and numbers; lists and tables go as JSON
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in space.choices]))
    if space.whole:
        step = 1 if space.step is None else int(space.step)
        return trial.suggest_int(key, int(space.low), int(space.high), step=step, log=space.log)
    return trial.suggest_float(key, space.low, space.high, step=space.step, log=space.log)


def sampler_of(optuna: ModuleType, tune: Tune, begun: int) -> Any:
    """The sampler of a trial, seeded by how many were begun before it."""
    if tune.sampler == "random":
        return optuna.samplers.RandomSampler(seed=tune.seed + begun)
    return optuna.samplers.TPESampler(seed=tune.seed + begun, n_startup_trials=tune.startup)


def pruner_of(optuna: ModuleType, tune: Tune) -> Any:
    """What ends hopeless trials between folds."""
    pruners, many = optuna.pruners, tune.startup
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some pruners are called experimental
        if tune.pruner == "median":
            return pruners.MedianPruner(n_startup_trials=many)
        if tune.pruner == "percentile":
            return pruners.PercentilePruner(25.0, n_startup_trials=many)
        return pruners.WilcoxonPruner() if tune.pruner == "wilcoxon" else pruners.NopPruner()


def importance_of(optuna: ModuleType, study: optuna.study.Study) -> dict[str, float] | None:
    """How much of the difference between trials each key explains (PED-ANOVA, Watanabe et al. 2023), if it can tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError, ImportError):
            return None
    return found if any(value > 0 for value in found.values()) else None


def space_table(tune: Tune) -> dict[str, Any]:
    """The space as plain tables."""
    return {
        key: {"choices": list(space.choices)}
        if isinstance(space, Choices)
        else {"low": space.low, "high": space.high, "log": space.log, "step": space.step}
        for key, space in tune.space.items()
    }
