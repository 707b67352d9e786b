"""Recipes: everything a person chose for a training run, in one TOML file.

What the *data* decided is the plan (``prepare/plan.py``), never here.
"""

from hilum.config.reading import (
    built_in_recipes,
    read_recipe,
    recipe_from,
    seconds_of,
    to_table,
    to_toml,
    with_labels,
)
from hilum.config.recipe import (
    CascadeOptions,
    DataOptions,
    InferenceOptions,
    LocatorOptions,
    NetworkOptions,
    PatchOptions,
    PrepareOptions,
    Recipe,
    TrainingOptions,
)

__all__ = [
    "CascadeOptions",
    "DataOptions",
    "InferenceOptions",
    "LocatorOptions",
    "NetworkOptions",
    "PatchOptions",
    "PrepareOptions",
    "Recipe",
    "TrainingOptions",
    "built_in_recipes",
    "read_recipe",
    "recipe_from",
    "seconds_of",
    "to_table",
    "to_toml",
    "with_labels",
]
