"""Augmentations of anybody's own: functions by dotted name or entry point, called after the preset's changes.

Comes in: names from ``patches.augment_own`` of a recipe; then one augmented patch after the other. Goes out: what the
functions made of it, checked. It knows nothing of what they do.

A function is ``f(image_CDHW, labels_DHW, generator) -> (image_CDHW, labels_DHW)``: a normalised float32 image and
integer labels on the device that trains (D = 1 in 2D), and NumPy's random numbers, which repeat with the run's seed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hilum import plugins
from hilum.errors import RecipeError

WHERE = "patches.augment_own"
WANTED = "the dotted name of a function f(image_CDHW, labels_DHW, generator) -> (image_CDHW, labels_DHW)"
Change = Callable[[torch.Tensor, torch.Tensor, np.random.Generator], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class OwnChange:
    """A function and the name that a recipe calls it by."""

    name: str
    function: Change

    def __call__(
        self, image_CDHW: torch.Tensor, labels_DHW: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the function made of one patch, of the same shapes and types.

        Raises:
            RecipeError: it failed, or gave back something else than an image and labels of these shapes and types.
        """
        try:
            found = self.function(image_CDHW, labels_DHW, generator)
        except Exception as error:  # whatever somebody else's code may raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise RecipeError(
                f"{self.name!r} failed with {type(error).__name__}: {error}",
                where=WHERE,
                fix=f"mend line {last.lineno} of {last.filename}",
            ) from error
        if not (isinstance(found, tuple | list) and len(found) == 2):
            raise self._refused(f"returned {type(found).__name__}")
        for what, old, new in (("image", image_CDHW, found[0]), ("labels", labels_DHW, found[1])):
            if not isinstance(new, torch.Tensor):
                raise self._refused(f"returned {type(new).__name__} as {what}")
            if (new.shape, new.dtype, new.device) != (old.shape, old.dtype, old.device):
                raise self._refused(f"was given {_told(old)} as {what} and returned {_told(new)}")
        return found[0], found[1]

    def _refused(self, found: str) -> RecipeError:
        return RecipeError(
            f"{self.name!r} {found}",
            where=WHERE,
            wanted="(image, labels) as tensors of the shapes, types and device that came in",
            fix="return both, also the one that did not change",
        )


def own_changes(names: Sequence[str]) -> tuple[OwnChange, ...]:
    """The functions of a recipe's list.

    Raises:
        RecipeError: one cannot be found, or is no function.
    """
    return tuple(OwnChange(name, plugins.load("augmentations", name, WHERE, WANTED)) for name in names)


def check_labels(labels_BDHW: torch.Tensor, classes: int, changes: Sequence[OwnChange]) -> None:
    """Refuse labels that no class has; it waits for the device, so ask it once and not at every step.

    Raises:
        RecipeError: own changes made labels outside 0..classes - 1.
    """
    low, high = (int(x) for x in torch.aminmax(labels_BDHW))
    if low < 0 or high >= classes:
        raise RecipeError(
            f"{[change.name for change in changes]} left labels from {low} to {high}",
            where=WHERE,
            wanted=f"class indices from 0 to {classes - 1}",
            fix="move labels, don't mix them: nearest neighbour where you interpolate",
        )


def _told(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} on {tensor.device}"
