"""Augmentation: drawn once, applied as tensors on the device that trains.

Comes in: settings (``presets``), random numbers, then patches. Goes out: parameters, then changed patches.
``draw_item`` holds all randomness; ``apply_item`` is a pure function of its arguments.

A patch goes this way: one interpolation of image and labels (turn, magnify, crop, bend), mirrored, another scanner (in
HU, ``acquisition``), normalised, grey values (``intensity``). Without a change in HU it is normalised first, so that
what the window cuts off is cut off before it is interpolated.

Shapes: images (C, D, H, W) float32; labels (D, H, W). Two-dimensional patches have D = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hilum.patches import spatial
from hilum.patches.acquisition import ACQUISITION
from hilum.patches.elastic import Bend, Triple
from hilum.patches.intensity import CHANGES
from hilum.patches.presets import PRESETS, AugmentSettings, settings_from
from hilum.patches.spatial import Matrix, Shape3

__all__ = [
    "PRESETS",
    "AugmentParameters",
    "AugmentSettings",
    "ItemParameters",
    "apply_item",
    "draw_item",
    "settings_from",
    "source_box",
]

Arguments = tuple[float | int, ...]
# The first are drawn in the order in which they are applied. What was added later is drawn later, so that a seed goes
# on to mean the same patches for presets without it.
_DRAWN_LAST = ("histogram",)
_NO_CHANGE: Triple = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class ItemParameters:
    """What happens to one patch.

    Attributes:
        matrix: where voxels come from (``spatial.turn_and_scale``); None if nothing is interpolated.
        flips: axes of (D, H, W) to reverse.
        changes: names of ``intensity.CHANGES`` with their arguments, in order.
        shift: of the view along D, H, W, as a share of the way between the patch's first and last voxel.
        bend: displacements; None without a matrix.
        acquisition: names of ``acquisition.ACQUISITION`` with their arguments, in order.
    """

    matrix: Matrix | None = None
    flips: tuple[int, ...] = ()
    changes: tuple[tuple[str, Arguments], ...] = ()
    shift: Triple = (0.0, 0.0, 0.0)
    bend: Bend | None = None
    acquisition: tuple[tuple[str, Arguments], ...] = ()


@dataclass(frozen=True)
class AugmentParameters:
    """What happens to each patch of a batch."""

    items: tuple[ItemParameters, ...]


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
    spatial_on = settings.spatial_probability >= 1 or bool(generator.random() < settings.spatial_probability)
    turned = _draw_turn(settings, generator, flat) if spatial_on else None
    coins = generator.random(3) < 0.5
    # mirroring along D is harmless for thick slices: nothing is mixed
    axes = [a for a in settings.mirror if a in allow_mirror and not (a == 0 and dims == 2)]
    changes: dict[str, Arguments] = {}
    for name in (*(n for n in CHANGES if n not in _DRAWN_LAST), *_DRAWN_LAST):
        if generator.random() < getattr(settings, f"{name}_probability"):
            changes[name] = _draw_change(name, settings, generator, flat)
    in_hu = _draw_acquisition(settings, generator, spacing_mm, dims)
    part, shift = _NO_CHANGE, (0.0, 0.0, 0.0)
    bend = None
    if spatial_on and generator.random() < settings.crop_probability:
        part, shift = _draw_crop(settings, generator, flat or settings.spatial_in_plane)
    if spatial_on and generator.random() < settings.elastic_probability:
        bend = _draw_bend(settings, generator, flat or settings.spatial_in_plane, spacing_mm)
    matrix = None
    if turned or bend or part != _NO_CHANGE:
        degrees, scale = turned or ((0.0, 0.0, 0.0), _NO_CHANGE)
        matrix = spatial.turn_and_scale(degrees, [s / p for s, p in zip(scale, part, strict=True)], spacing_mm)
    return ItemParameters(
        matrix,
        tuple(a for a in axes if coins[a]),
        tuple((name, changes[name]) for name in CHANGES if name in changes),
        shift,
        bend,
        in_hu,
    )


def _draw_turn(settings: AugmentSettings, generator: np.random.Generator, flat: bool) -> tuple[Triple, Triple] | None:
    """Degrees about and magnifications along D, H, W; None if neither is to happen."""
    rotated = bool(generator.random() < settings.rotation_probability)
    scaled = bool(generator.random() < settings.scale_probability)
    if not (rotated or scaled):
        return None
    limit = settings.flat_rotation_degrees if flat and settings.flat_rotation_degrees else settings.rotation_degrees
    limit = limit if rotated else 0.0
    about_d, about_h, about_w = (float(a) for a in generator.uniform(-limit, limit, 3))
    sizes = [1.0] * 3
    if scaled:
        drawn = generator.uniform(*settings.scale_range, 3 if settings.scale_per_axis else 1)
        sizes = [float(size) for size in np.broadcast_to(1 / drawn if settings.scale_of_view else drawn, 3)]
    if flat or settings.spatial_in_plane:
        return (about_d, 0.0, 0.0), (1.0, sizes[1], sizes[2])
    return (about_d, about_h, about_w), (sizes[0], sizes[1], sizes[2])


def _draw_crop(settings: AugmentSettings, generator: np.random.Generator, flat: bool) -> tuple[Triple, Triple]:
    """The share of each edge that stays in view, and where in the patch its middle lies (0 is the patch's middle)."""
    share = float(generator.uniform(*settings.crop_range))
    z, y, x = (float(s) for s in generator.uniform(-1, 1, 3) * (1 - share) / 2)
    return ((1.0, share, share), (0.0, y, x)) if flat else ((share, share, share), (z, y, x))


def _draw_bend(
    settings: AugmentSettings, generator: np.random.Generator, flat: bool, spacing_mm: Sequence[float]
) -> Bend:
    distance_mm = float(generator.uniform(*settings.elastic_mm))
    share = float(generator.uniform(*settings.elastic_share))
    d, h, w = (distance_mm / mm for mm in spacing_mm)
    if flat:
        d = 0.0
    return Bend((d, h, w), (share * d, share * h, share * w), int(generator.integers(2**62)))


def _draw_acquisition(
    settings: AugmentSettings, generator: np.random.Generator, spacing_mm: Sequence[float], dims: int
) -> tuple[tuple[str, Arguments], ...]:
    """What changes in HU, in the order of ``ACQUISITION``; a 2D patch has no slices to average."""
    found: list[tuple[str, Arguments]] = []
    for name in ACQUISITION:
        if not generator.random() < getattr(settings, f"{name}_probability"):
            continue
        if name == "ct_noise":
            width_mm = float(generator.uniform(*settings.ct_noise_mm))
            # variance goes with the third power of a kernel's cut-off (Riederer et al. 1978)
            sd_hu = float(generator.uniform(*settings.ct_noise_hu)) * (settings.ct_noise_mm[0] / width_mm) ** 1.5
            widths = [width_mm / mm for mm in spacing_mm]
            found.append((name, (sd_hu, *widths, int(generator.integers(2**62)))))
        elif name == "thickness":
            voxels = float(generator.uniform(*settings.thickness_mm)) / spacing_mm[0]
            if dims == 3 and voxels > 1:
                found.append((name, (voxels,)))
        else:
            limit = settings.window_shift_hu
            width = _about_one(generator, *settings.window_width)
            found.append((name, (float(generator.uniform(-limit, limit)), width)))
    return tuple(found)


def _draw_change(name: str, settings: AugmentSettings, generator: np.random.Generator, flat: bool) -> Arguments:
    """The arguments of one of ``CHANGES``."""
    if name == "noise":
        return float(generator.uniform(*settings.noise_sd)), int(generator.integers(2**62))
    if name == "blur":
        sigmas = [float(s) for s in generator.uniform(*settings.blur_sigma_voxels, 3)]
        return (0.0 if flat else sigmas[0], sigmas[1], sigmas[2])
    if name == "low_resolution":
        factor = float(generator.uniform(*settings.low_resolution_range))
        return (1.0 if flat else factor, factor, factor)
    if name == "histogram":
        return _draw_curve(settings.histogram_points, generator)
    if name.endswith("gamma"):
        low, high = settings.gamma_range
        power = float(generator.uniform(low, high)) if settings.gamma_evenly else _about_one(generator, low, high)
        return (power, True) if settings.gamma_keeps_range else (power,)
    return (_about_one(generator, *getattr(settings, f"{name}_range")),)


def _draw_curve(count: int, generator: np.random.Generator) -> tuple[float, ...]:
    """A curve from 0 to 1 that never falls: each point between its left neighbour and its right one's old place.

    So MONAI's RandHistogramShift draws it.
    """
    curve = [k / (count - 1) for k in range(count)]
    for k in range(1, count - 1):
        curve[k] = float(generator.uniform(curve[k - 1], curve[k + 1]))
    return tuple(curve)


def _about_one(generator: np.random.Generator, low: float, high: float) -> float:
    """Below and above 1 equally often if the range holds both, as nnU-Net draws factors and exponents."""
    below = generator.random() < 0.5
    if low < 1 < high:
        low, high = (low, 1.0) if below else (1.0, high)
    return float(generator.uniform(low, high))


def source_box(item: ItemParameters, patch: Shape3) -> Shape3:
    """The box about the patch's centre that ``apply_item`` needs."""
    bend = item.bend.largest_voxels if item.bend else (0.0, 0.0, 0.0)
    further = [abs(share) * (n - 1) + most for share, n, most in zip(item.shift, patch, bend, strict=True)]
    return spatial.source_shape(item.matrix, patch, further)


def apply_item(
    item: ItemParameters,
    image_CDHW: torch.Tensor,
    labels_DHW: torch.Tensor,
    out_shape: Shape3,
    normalise: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One augmented patch; where nothing happens, views of what was given.

    Args:
        item: what shall happen.
        image_CDHW: ``source_box``, or more by an even number along each axis. HU, or normalised if ``normalise`` is
            None; then ``item.acquisition``, which is about HU, has to be empty.
        labels_DHW: its labels.
        out_shape: of the patch.
        normalise: HU to what the network sees; must not write into what it is given.
    """
    room = [n - s for n, s in zip(labels_DHW.shape, out_shape, strict=True)]
    assert image_CDHW.shape[1:] == labels_DHW.shape and all(r >= 0 and r % 2 == 0 for r in room), (room, out_shape)
    assert normalise or not item.acquisition, "noise, thickness and window are about HU"
    if normalise and not item.acquisition:
        image_CDHW = normalise(image_CDHW)
    if item.matrix is None:
        image, label = spatial.crop(image_CDHW, labels_DHW, out_shape)
    else:
        shift = [share * (n - 1) for share, n in zip(item.shift, out_shape, strict=True)]
        image, label = spatial.resample(image_CDHW, labels_DHW, item.matrix, out_shape, shift, item.bend)
    image, label = spatial.mirror(image, label, item.flips)
    if (item.changes or item.acquisition) and item.matrix is None and not item.flips:
        image = image.clone()  # the changes write in place
    for name, arguments in item.acquisition:
        image = ACQUISITION[name](image, *arguments)
    if normalise and item.acquisition:
        image = normalise(image)
    for name, arguments in item.changes:
        image = CHANGES[name](image, *arguments)
    return image, label
