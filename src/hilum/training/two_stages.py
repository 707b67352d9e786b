"""TWO STAGES: a locator at low resolution, and the recipe's own network inside what it finds.

Comes in: one recipe. Goes out: the recipe of its locator, and its own with patches kept near the organs. The locator is
a run of its own in ``RUN/locator``, resumed and judged like any; its model travels inside the other's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hilum.config import (
    CascadeOptions,
    InferenceOptions,
    LocatorOptions,
    NetworkOptions,
    PrepareOptions,
    Recipe,
    seconds_of,
)
from hilum.errors import RecipeError

FOLDER = "locator"


def wants_locator(recipe: Recipe) -> bool:
    """Whether a recipe has two stages."""
    return recipe.locator.spacing_mm > 0


def check_locator(options: LocatorOptions, dims: int) -> None:
    """Refuse, before anything is computed, a locator that cannot be.

    Raises:
        RecipeError: naming the key.
    """
    for key, good, wanted in (
        ("spacing_mm", 0 <= options.spacing_mm <= 20, "0 (none), or millimetres up to 20, e.g. 4"),
        ("batch", options.batch >= 1, "a number of at least 1"),
        ("base_features", options.base_features >= 1, "a number of at least 1"),
        ("steps", options.steps >= 1, "a number of at least 1"),
        ("budget_share", 0 < options.budget_share < 1, "a share above 0 and below 1"),
        ("margin_mm", options.margin_mm > 0, "millimetres above 0"),
    ):
        if not good:
            raise RecipeError(f"{getattr(options, key)}", where=f"locator.{key}", wanted=wanted)
    if options.spacing_mm and dims != 3:
        raise RecipeError(
            f"a locator with prepare.dims = {dims}", where="locator.spacing_mm", wanted="prepare.dims = 3"
        )


def check_cascade(recipe: Recipe) -> None:
    """Refuse, before anything is computed, a cascade that cannot be.

    Raises:
        RecipeError: naming the key.
    """
    options = recipe.cascade
    if options.use == "never":
        return
    for key, good, wanted in (
        ("spacing_mm", _three(options.spacing_mm), "three numbers above 0 in the order D, H, W, e.g. [3, 3, 3], or []"),
        ("patch", _three(options.patch), "three numbers above 0 in the order D, H, W, or []"),
        ("batch", options.batch >= 0, "a number of at least 1, or 0"),
        ("steps", options.steps >= 0, "a number of at least 1, or 0 for the recipe's own"),
        ("budget_share", 0 < options.budget_share < 1, "a share above 0 and below 1"),
    ):
        if not good:
            raise RecipeError(f"{getattr(options, key)}", where=f"cascade.{key}", wanted=wanted)
    for clash, said, fix in (
        (recipe.prepare.dims != 3, f"a cascade with prepare.dims = {recipe.prepare.dims}", "prepare.dims = 3"),
        (wants_locator(recipe), "a cascade and a locator", "one of them: locator.spacing_mm = 0"),
        (
            bool(recipe.patches.augment_own),
            f"a cascade with patches.augment_own = {list(recipe.patches.augment_own)}, which would not move what the "
            "first network found along with the patch",
            "augment_own = []",
        ),
    ):
        if clash:
            raise RecipeError(said, where="cascade.use", wanted=fix)


def _three(values: Sequence[float]) -> bool:
    return not values or (len(values) == 3 and min(values) > 0)


def locator_recipe(recipe: Recipe) -> Recipe:
    """The first stage: a plain U-Net of softmax labels on coarse voxels, with the recipe's data, loss and seeds."""
    options, training = recipe.locator, recipe.training
    budget = seconds_of(training.budget)
    return replace(
        recipe,
        name=f"{recipe.name}_locator",
        description=f"Finds organs for {recipe.name} at {options.spacing_mm:g} mm",
        prepare=PrepareOptions(
            spacing_mm=(options.spacing_mm,) * 3,
            patch=options.patch,
            batch=options.batch,
            base_features=options.base_features,
            normalisation=recipe.prepare.normalisation,
            window_hu=recipe.prepare.window_hu,
            gamma=recipe.prepare.gamma,
        ),
        network=NetworkOptions(),
        locator=LocatorOptions(),
        cascade=CascadeOptions(),
        training=replace(
            training,
            steps=options.steps,
            epochs=0,
            budget=f"{budget * options.budget_share}s" if budget else "",
            loss="dice_ce",
            loss_options={},
            deep_supervision=True,
            patience=0,
            keep="last",
            track=(),
        ),
        inference=InferenceOptions(),
        postprocess=(),
    )


def fine_recipe(recipe: Recipe) -> Recipe:
    """The second stage: the recipe with what the locator leaves of its budget, learning near the organs."""
    options = recipe.locator
    budget = seconds_of(recipe.training.budget)
    left = f"{budget * (1 - options.budget_share)}s" if budget else ""
    return replace(
        recipe,
        patches=replace(recipe.patches, within_mm=recipe.patches.within_mm or options.margin_mm),
        training=replace(recipe.training, budget=left),
    )
