"""Augmentation: drawn once, applied as tensors on the device that trains.

Comes in: settings (a preset and a recipe's overrides), random numbers, then patches. Goes out: parameters, then changed
patches. ``draw_item`` holds all randomness; ``apply_item`` is a pure function of its arguments.

Shapes: images (C, D, H, W) float32, normalised; labels (D, H, W). Two-dimensional patches have D = 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from hilum.errors import RecipeError
from hilum.patches import spatial
from hilum.patches.intensity import CHANGES
from hilum.patches.spatial import Matrix, Shape3

Range = tuple[float, float]


@dataclass(frozen=True)
class AugmentSettings:
    """How likely each change is and between which bounds it is drawn; all off by default.

    Attributes:
        rotation_probability: of turning.
        rotation_degrees: angles are drawn from -this to this, one for each axis.
        spatial_in_plane: turn and magnify within axial slices only, thin ones too (a third of the cost on a CPU).
        scale_probability: of magnifying.
        scale_range: magnification, the same along all axes; above 1, things look larger.
        mirror: axes (0 D, 1 H, 2 W) that are reversed with probability one half each.
        noise_probability: of adding Gaussian noise.
        noise_sd: its standard deviation in normalised units.
        blur_probability: of Gaussian blur.
        blur_sigma_voxels: its standard deviation, drawn for each axis.
        brightness_probability: of multiplying the normalised values.
        brightness_range: by this.
        contrast_probability: of stretching about the mean.
        contrast_range: by this.
        low_resolution_probability: of sampling down and up again.
        low_resolution_range: share of the voxels kept along each axis.
        gamma_probability: of a power of the values.
        inverted_gamma_probability: of a power of the negative values.
        gamma_range: the exponent of both.
    """

    rotation_probability: float = 0.0
    rotation_degrees: float = 30.0
    spatial_in_plane: bool = False
    scale_probability: float = 0.0
    scale_range: Range = (0.7, 1.4)
    mirror: tuple[int, ...] = ()
    noise_probability: float = 0.0
    noise_sd: Range = (0.0, 0.1)
    blur_probability: float = 0.0
    blur_sigma_voxels: Range = (0.5, 1.0)
    brightness_probability: float = 0.0
    brightness_range: Range = (0.75, 1.25)
    contrast_probability: float = 0.0
    contrast_range: Range = (0.75, 1.25)
    low_resolution_probability: float = 0.0
    low_resolution_range: Range = (0.5, 1.0)
    gamma_probability: float = 0.0
    inverted_gamma_probability: float = 0.0
    gamma_range: Range = (0.7, 1.5)


PRESETS: dict[str, AugmentSettings] = {
    "none": AugmentSettings(),
    # for training on a CPU: nothing that costs more than a few milliseconds
    "light": AugmentSettings(
        rotation_probability=0.2,
        rotation_degrees=15.0,
        spatial_in_plane=True,
        scale_probability=0.2,
        scale_range=(0.8, 1.25),
        mirror=(0, 1, 2),
        noise_probability=0.1,
        brightness_probability=0.15,
        contrast_probability=0.15,
    ),
    # The probabilities and ranges of nnU-Net v2's default trainer (nnUNetTrainer.get_training_transforms). There, blur
    # and low resolution then spare each channel with probability one half; here they don't.
    "default": AugmentSettings(
        rotation_probability=0.2,
        scale_probability=0.2,
        mirror=(0, 1, 2),
        noise_probability=0.1,
        blur_probability=0.2,
        brightness_probability=0.15,
        contrast_probability=0.15,
        low_resolution_probability=0.25,
        gamma_probability=0.3,
        inverted_gamma_probability=0.1,
    ),
}


@dataclass(frozen=True)
class ItemParameters:
    """What happens to one patch.

    Attributes:
        matrix: where voxels come from (``spatial.turn_and_scale``); None if nothing is interpolated.
        flips: axes of (D, H, W) to reverse.
        changes: names of ``intensity.CHANGES`` with their arguments, in order.
    """

    matrix: Matrix | None = None
    flips: tuple[int, ...] = ()
    changes: tuple[tuple[str, tuple[float | int, ...]], ...] = ()


@dataclass(frozen=True)
class AugmentParameters:
    """What happens to each patch of a batch."""

    items: tuple[ItemParameters, ...]


def settings_from(preset: str, options: Mapping[str, Any] | None = None) -> AugmentSettings:
    """A preset with some of its settings replaced.

    Args:
        preset: a name in ``PRESETS``.
        options: names of ``AugmentSettings`` with new values; ``mirror`` may also be true (all axes) or false.

    Raises:
        RecipeError: an unknown preset or setting (the known ones are named), or a value out of bounds.
    """
    if preset not in PRESETS:
        raise RecipeError(f"patches.augment = {preset!r}", wanted=f"one of {list(PRESETS)}")
    base = PRESETS[preset]
    known = [field.name for field in fields(AugmentSettings)]
    values = {}
    for key, value in (options or {}).items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise RecipeError(
                f"unknown key 'patches.augment_options.{key}'",
                wanted=f"one of {known}",
                fix=f"did you mean {near[0]!r}?" if near else "remove it",
            )
        values[key] = _setting(key, value, getattr(base, key))
    return replace(base, **values)


def _setting(key: str, value: Any, old: Any) -> Any:
    """A recipe's value, checked against what the setting is."""
    number = (int, float)
    if key == "mirror":
        axes = [0, 1, 2] if value is True else [] if value is False else value
        if isinstance(axes, list | tuple) and all(type(a) is int and 0 <= a <= 2 for a in axes):
            return tuple(sorted(set(axes)))
        wanted = "true, false, or a list of axes: 0 head-foot, 1 front-back, 2 left-right"
    elif isinstance(old, bool):
        if isinstance(value, bool):
            return value
        wanted = "true or false"
    elif isinstance(old, tuple):
        lowest = 0.0 if key == "noise_sd" else 1e-3
        pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(v) in number for v in value)
        if pair and lowest <= value[0] <= value[1]:
            return float(value[0]), float(value[1])
        wanted = f"two ascending numbers of at least {lowest:g}, e.g. {list(old)}"
    else:
        highest = 180.0 if key == "rotation_degrees" else 1.0
        if type(value) in number and 0 <= value <= highest:
            return float(value)
        wanted = f"a number from 0 to {highest:g}"
    raise RecipeError(f"patches.augment_options.{key} = {value!r}", wanted=wanted)


def draw_item(
    settings: AugmentSettings,
    dims: int,
    generator: np.random.Generator,
    allow_mirror: Sequence[int] = (0, 1, 2),
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    in_plane: bool = False,
) -> ItemParameters:
    """Parameters for one patch.

    Args:
        settings: what may happen.
        dims: 2 or 3; with 2, D stays untouched.
        generator: NumPy's random numbers.
        allow_mirror: axes that may be reversed at all (not 2 where left and right are different labels).
        spacing_mm: of the patch along D, H, W.
        in_plane: leave D unmixed although there are several slices, for thick slices.
    """
    flat = dims == 2 or in_plane
    hits = {name: bool(generator.random() < getattr(settings, f"{name}_probability")) for name in ("rotation", "scale")}
    matrix = _draw_matrix(settings, generator, hits, flat, spacing_mm) if any(hits.values()) else None
    coins = generator.random(3) < 0.5
    # mirroring along D is harmless for thick slices: nothing is mixed
    axes = [a for a in settings.mirror if a in allow_mirror and not (a == 0 and dims == 2)]
    changes = []
    for name in CHANGES:
        if generator.random() < getattr(settings, f"{name}_probability"):
            changes.append((name, _draw_change(name, settings, generator, flat)))
    return ItemParameters(matrix, tuple(a for a in axes if coins[a]), tuple(changes))


def _draw_matrix(
    settings: AugmentSettings,
    generator: np.random.Generator,
    hits: Mapping[str, bool],
    flat: bool,
    spacing_mm: Sequence[float],
) -> Matrix:
    flat = flat or settings.spatial_in_plane
    limit = settings.rotation_degrees if hits["rotation"] else 0.0
    degrees = [float(angle) for angle in generator.uniform(-limit, limit, 3)]
    if flat:
        degrees[1:] = [0.0, 0.0]
    size = float(generator.uniform(*settings.scale_range)) if hits["scale"] else 1.0
    return spatial.turn_and_scale(degrees, (1.0 if flat else size, size, size), spacing_mm)


def _draw_change(
    name: str, settings: AugmentSettings, generator: np.random.Generator, flat: bool
) -> tuple[float | int, ...]:
    """The arguments of one of ``CHANGES``."""
    if name == "noise":
        return float(generator.uniform(*settings.noise_sd)), int(generator.integers(2**62))
    if name == "blur":
        sigmas = [float(s) for s in generator.uniform(*settings.blur_sigma_voxels, 3)]
        return (0.0 if flat else sigmas[0], sigmas[1], sigmas[2])
    if name == "low_resolution":
        factor = float(generator.uniform(*settings.low_resolution_range))
        return (1.0 if flat else factor, factor, factor)
    bounds = settings.gamma_range if name.endswith("gamma") else getattr(settings, f"{name}_range")
    return (_about_one(generator, *bounds),)


def _about_one(generator: np.random.Generator, low: float, high: float) -> float:
    """Below and above 1 equally often if the range holds both, as nnU-Net draws factors and exponents."""
    below = generator.random() < 0.5
    if low < 1 < high:
        low, high = (low, 1.0) if below else (1.0, high)
    return float(generator.uniform(low, high))


def apply_item(
    item: ItemParameters, image_CDHW: torch.Tensor, labels_DHW: torch.Tensor, out_shape: Shape3
) -> tuple[torch.Tensor, torch.Tensor]:
    """One augmented patch; where nothing happens, views of what was given."""
    room = [n - s for n, s in zip(labels_DHW.shape, out_shape, strict=True)]
    assert image_CDHW.shape[1:] == labels_DHW.shape and all(r >= 0 and r % 2 == 0 for r in room), (room, out_shape)
    if item.matrix is None:
        image, label = spatial.crop(image_CDHW, labels_DHW, out_shape)
    else:
        image, label = spatial.resample(image_CDHW, labels_DHW, item.matrix, out_shape)
    image, label = spatial.mirror(image, label, item.flips)
    if item.changes and item.matrix is None and not item.flips:
        image = image.clone()  # the changes write in place
    for name, arguments in item.changes:
        image = CHANGES[name](image, *arguments)
    return image, label
