"""What networks with a topology of their own share: options read by their defaults, and the sizes that they can halve.

Comes in: a table of options, a patch. Goes out: checked options; a refusal in words. Knows no network by name and
imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hilum.errors import RecipeError

# every network is handed what the plan and the recipe's training section decided (``networks.plan_options``,
# ``training.deep_supervision``); one with a topology of its own leaves exactly these aside
PLANNED = ("convs_per_stage", "deep_supervision", "features", "kernels", "strides")


def own_options(
    options: Mapping[str, Any], defaults: Mapping[str, Any], choices: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """The network's own options: the defaults, and over them what the table says.

    Args:
        options: the table; planned keys that the network does not use are left aside.
        defaults: what the network knows. A default's type is its rule: true or false; a whole number of at least 1; a
            float is a share from 0 to below 1; a list holds as many whole numbers of at least 1 as one likes; a text
            is one of its ``choices``.
        choices: the texts allowed for each option that is a text.

    Raises:
        RecipeError: an unknown key, or a value that breaks its rule.
    """
    unknown = sorted(set(options) - set(defaults) - set(PLANNED))
    if unknown:
        raise RecipeError(
            f"unknown keys {unknown}",
            where="network.options",
            wanted=f"keys of {sorted(defaults)}; {list(PLANNED)} come from the plan and the training section",
        )
    read = {key: options.get(key, default) for key, default in defaults.items()}
    for key, default in defaults.items():
        allowed = (choices or {}).get(key, ())
        wanted, good = _rule(default, allowed, read[key])
        if not good:
            raise RecipeError(f"{key} = {read[key]!r}", where="network.options", wanted=wanted)
    return read


def check_multiple(patch: Sequence[int], steps: Sequence[int]) -> None:
    """Raise RecipeError unless the patch (D, H, W) divides by the steps and leaves more than one voxel."""
    if len(patch) != 3:
        raise RecipeError(f"patch {list(patch)}", where="prepare.patch", wanted="three numbers D, H, W (D = 1 for 2D)")
    for axis, (size, step) in enumerate(zip(patch, steps, strict=True)):
        if size < 1 or size % step:
            low = max(1, size // step) * step
            raise RecipeError(
                f"the patch {tuple(patch)} has {size} voxels along {'DHW'[axis]}, where the network divides by {step}",
                where="prepare.patch",
                wanted=f"a multiple of {step}",
                fix=f"take {low} or {low + step}",
            )
    if math.prod(size // step for size, step in zip(patch, steps, strict=True)) < 2:
        raise RecipeError(
            f"the patch {tuple(patch)} shrinks to a single voxel, which normalisation cannot take",
            where="prepare.patch",
            wanted=f"at least twice {tuple(steps)} along one axis",
        )


def check_halvings(patch: Sequence[int], times: int) -> None:
    """Raise RecipeError unless each axis can be halved ``times`` times; a patch of one slice is a 2D network's."""
    step = 2**times
    check_multiple(patch, [1 if len(patch) == 3 and patch[0] == 1 else step, step, step])


def _rule(default: Any, allowed: Sequence[str], value: Any) -> tuple[str, bool]:
    if isinstance(default, bool):
        return "true or false", isinstance(value, bool)
    if isinstance(default, str):
        return f"one of {list(allowed)}", isinstance(value, str) and value in allowed
    if isinstance(default, int):
        return "a whole number of at least 1", _whole(value)
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return "a number from 0 to below 1", number and 0 <= value < 1
    listed = isinstance(value, list | tuple) and len(value) > 0 and all(_whole(n) for n in value)
    return "a list of whole numbers of at least 1", listed


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
