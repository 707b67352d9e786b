"""What augmentation may do: probabilities and ranges, as named presets and a recipe's changes of them.

Comes in: a preset's name and a recipe's table. Goes out: checked settings. It draws nothing and touches no voxel.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from hilum.errors import RecipeError

Range = tuple[float, float]


@dataclass(frozen=True)
class AugmentSettings:
    """How likely each change is and between which bounds it is drawn; all off by default.

    Shape (image and labels together, in one interpolation):

    Attributes:
        spatial_probability: that rotation, scale, crop and elastic are thought of at all; below 1 they come together.
        rotation_probability: of turning.
        rotation_degrees: angles are drawn from -this to this, one for each axis.
        flat_rotation_degrees: the same where slices are not mixed (2D, thick slices); 0: as ``rotation_degrees``.
        spatial_in_plane: turn, magnify and bend within axial slices only, thin ones too (a third of the cost on a CPU).
        scale_probability: of magnifying.
        scale_range: magnification; above 1, things look larger.
        scale_per_axis: draw it for each axis, not once for all.
        scale_of_view: draw how much larger the view gets, as nnU-Net and MONAI do; the magnification is its inverse.
        crop_probability: of looking at a smaller part of the patch, anywhere in it, enlarged to the patch's size.
        crop_range: the part's share of each edge.
        elastic_probability: of bending by a smooth field of displacements (cubic B-splines).
        elastic_mm: distance of the field's control points.
        elastic_share: largest displacement of a control point, as a share of that distance; below 0.4 nothing folds
            (Rueckert et al., MICCAI 2006;4191:702-709: 1/2.48 of the distance in 3D).
        mirror: axes (0 D, 1 H, 2 W) that are reversed with probability one half each.

    Acquisition (on HU, before normalisation):

    Attributes:
        thickness_probability: of slices averaged along D and interpolated back; has no effect on 2D patches.
        thickness_mm: how thick; up to the patch's own spacing nothing changes.
        ct_noise_probability: of noise that is correlated as a reconstruction kernel makes it.
        ct_noise_hu: its standard deviation with the sharpest kernel of ``ct_noise_mm``; softer ones have less.
        ct_noise_mm: how far a kernel correlates it in the slice (sigma of its blur).
        window_probability: of another window than the normalisation's: HU shifted and stretched about 40 HU.
        window_shift_hu: by so much, up or down, the window's centre moves.
        window_width: its width as a factor.

    Grey values (normalised):

    Attributes:
        noise_probability: of adding white Gaussian noise.
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
        gamma_evenly: draw exponents evenly from the range, not below and above 1 equally often.
        gamma_keeps_range: keep the smallest and largest value, not mean and standard deviation.
        histogram_probability: of passing the values through a random curve that rises everywhere.
        histogram_points: how many points the curve has.
    """

    spatial_probability: float = 1.0
    rotation_probability: float = 0.0
    rotation_degrees: float = 30.0
    flat_rotation_degrees: float = 0.0
    spatial_in_plane: bool = False
    scale_probability: float = 0.0
    scale_range: Range = (0.7, 1.4)
    scale_per_axis: bool = False
    scale_of_view: bool = False
    crop_probability: float = 0.0
    crop_range: Range = (0.7, 1.0)
    elastic_probability: float = 0.0
    elastic_mm: Range = (25.0, 60.0)
    elastic_share: Range = (0.05, 0.25)
    mirror: tuple[int, ...] = ()
    thickness_probability: float = 0.0
    thickness_mm: Range = (1.5, 6.0)
    ct_noise_probability: float = 0.0
    ct_noise_hu: Range = (5.0, 40.0)
    ct_noise_mm: Range = (0.35, 0.8)
    window_probability: float = 0.0
    window_shift_hu: float = 20.0
    window_width: Range = (0.85, 1.2)
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
    gamma_evenly: bool = False
    gamma_keeps_range: bool = False
    histogram_probability: float = 0.0
    histogram_points: int = 16


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
    # What a CT patch meets in nnU-Net v2's default trainer (nnUNetTrainer.get_training_transforms). There, blur (0.2)
    # and low resolution (0.25) then spare each channel with probability one half; CT has one channel.
    "default": AugmentSettings(
        rotation_probability=0.2,
        flat_rotation_degrees=180.0,
        scale_probability=0.2,
        scale_of_view=True,
        mirror=(0, 1, 2),
        noise_probability=0.1,
        blur_probability=0.1,
        brightness_probability=0.15,
        contrast_probability=0.15,
        low_resolution_probability=0.125,
        gamma_probability=0.3,
        inverted_gamma_probability=0.1,
    ),
    # The set "ct_ax_1" of MONAI's Auto3DSeg SegResNet template, which KiTS23's winner used (augment_mode of its
    # input.yaml): histogram shift, gamma, and in half the patches a turn of up to 0.26 rad about the body's axis
    # together with a view stretched by 0.65 to 1.35 along H and W each.
    "kits23_winner": AugmentSettings(
        spatial_probability=0.5,
        rotation_probability=1.0,
        rotation_degrees=14.9,
        spatial_in_plane=True,
        scale_probability=1.0,
        scale_range=(0.65, 1.35),
        scale_per_axis=True,
        scale_of_view=True,
        mirror=(0, 1, 2),
        gamma_probability=0.2,
        gamma_range=(0.5, 3.0),
        gamma_evenly=True,
        gamma_keeps_range=True,
        histogram_probability=0.5,
    ),
    # For learning from synthetic scans what shall hold on real ones: shapes bend, and nothing about grey values, noise
    # or slice thickness can be relied on (appearance randomised as Tobin et al. 2017 and SynthSeg, Billot et al. 2023).
    "strong": AugmentSettings(
        rotation_probability=0.3,
        scale_probability=0.4,
        scale_per_axis=True,
        crop_probability=0.1,
        elastic_probability=0.25,
        mirror=(0, 1, 2),
        thickness_probability=0.3,
        ct_noise_probability=0.5,
        window_probability=0.5,
        window_shift_hu=30.0,
        window_width=(0.7, 1.4),
        noise_probability=0.1,
        blur_probability=0.3,
        blur_sigma_voxels=(0.4, 1.2),
        brightness_probability=0.3,
        brightness_range=(0.7, 1.3),
        contrast_probability=0.3,
        contrast_range=(0.7, 1.3),
        low_resolution_probability=0.2,
        gamma_probability=0.3,
        inverted_gamma_probability=0.2,
        histogram_probability=0.3,
        histogram_points=8,
    ),
}

# bounds of settings that are numbers, and of pairs; all others: probabilities 0 to 1, pairs from 1e-3
_HIGHEST = {"rotation_degrees": 180.0, "flat_rotation_degrees": 180.0, "window_shift_hu": 1000.0}
_LOWEST_OF_PAIR = {"noise_sd": 0.0, "ct_noise_hu": 0.0, "elastic_share": 0.0, "thickness_mm": 0.0}
_HIGHEST_OF_PAIR = {"crop_range": 1.0, "low_resolution_range": 1.0, "elastic_share": 0.4}


def settings_from(preset: str, options: Mapping[str, Any] | None = None) -> AugmentSettings:
    """A preset with some of its settings replaced.

    Args:
        preset: a name in ``PRESETS``.
        options: names of ``AugmentSettings`` with new values; ``mirror`` may also be true (all axes) or false.

    Raises:
        RecipeError: an unknown preset or setting (the known ones are named), or a value out of bounds.
    """
    if preset not in PRESETS:
        raise RecipeError(
            f"patches.augment = {preset!r}",
            wanted=f"one of {list(PRESETS)}",
            fix="functions of your own belong in patches.augment_own",
        )
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
        lowest, highest = _LOWEST_OF_PAIR.get(key, 1e-3), _HIGHEST_OF_PAIR.get(key, 1e4)
        pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(v) in number for v in value)
        if pair and lowest <= value[0] <= value[1] <= highest:
            return float(value[0]), float(value[1])
        wanted = f"two ascending numbers from {lowest:g} to {highest:g}, e.g. {list(old)}"
    elif isinstance(old, int):
        if type(value) is int and 3 <= value <= 256:
            return value
        wanted = "a whole number from 3 to 256"
    else:
        highest = _HIGHEST.get(key, 1.0)
        if type(value) in number and 0 <= value <= highest:
            return float(value)
        wanted = f"a number from 0 to {highest:g}"
    raise RecipeError(f"patches.augment_options.{key} = {value!r}", wanted=wanted)
