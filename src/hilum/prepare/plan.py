"""The plan: what the data decide about spacing, patch, network and normalisation.

Comes in: a fingerprint, the user's wishes (``PrepareOptions``) and the label scheme. Goes out: a frozen ``Plan`` that
travels in the model folder as JSON. Reads no scan and builds no network.

The rules follow nnU-Net v2 (Isensee 2021, Nat. Methods 18:203-211, and its published defaults):

* spacing: the median per axis; where the coarsest axis is more than 3 times coarser than the others and has less than a
  third of their voxels, that axis takes the 10th percentile, though not finer than the others.
* patch: 256^3 voxels (2048^2 in 2D) in the aspect of equal millimetres, clipped to the median shape, then shrunk along
  the axis that is largest against the median shape until the network's memory fits.
* network: an axis is halved while it keeps 4 voxels and is less than twice as coarse as the finest axis that can still
  be halved; a kernel is 1 wide along an axis at least twice as coarse as the finest, 3 once it has caught up, and 3 at
  the bottom.
* batch: what fits, at least 2, at most 5 % of the data set's voxels.
* CT intensities: clipped at the 0.5 and 99.5 percentile of labelled voxels, then their mean and deviation.

Memory is counted by ``memory``, for the kind of network that will be trained.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from hilum.config import PrepareOptions
from hilum.errors import ModelError, RecipeError
from hilum.labels import LabelScheme
from hilum.prepare.conventions import OWN, Conventions
from hilum.prepare.fingerprint import Fingerprint
from hilum.prepare.flat import check_slices
from hilum.prepare.memory import PLAIN, REFERENCE_BATCH, Encoder, memory_bytes
from hilum.prepare.normalisation import Normalisation, check_intensities, planned_normalisation

FORMAT = 1
ANISOTROPY = 3.0  # from which ratio of spacings on an axis is treated apart
CONVS = 2
_LEAST_EDGE = 4
_LEAST_BATCH = 2

log = logging.getLogger(__name__)
Triple = tuple[int, int, int]


_OPTIONAL = ("conventions", "labels", "context", "inplane")  # plans of before these were written without them


@dataclass(frozen=True)
class Plan:
    """All that preparing, training and inference must agree on. Axes are D, H, W of SPL order.

    Attributes:
        dims: 3, or 2 for axial slices.
        spacing_mm: of prepared cases; in 2D the first is only the data's median, slices stay where they are.
        patch: voxels; (1, H, W) in 2D.
        batch: patches a step.
        features: channels a stage, finest first.
        kernels: kernel size a stage.
        strides: step into each stage; the first is (1, 1, 1).
        convs_per_stage: convolutions a stage of the encoder (the decoder has as many, without the deepest).
        normalisation: of intensities.
        separate_z: slices are so thick that they are resampled in plane only, nearest along D.
        median_shape: the median case at ``spacing_mm``.
        conventions: what the model of another toolkit wants otherwise.
        labels: how training's label maps come to ``spacing_mm``: "linear" (the class with the largest linearly
            interpolated share) or "nearest".
        context: in 2D, neighbours on each side of a slice that the network sees as further channels, lowest first.
        inplane: in 2D, rows and columns that every slice is resized to whatever its spacing; () follows ``spacing_mm``.
    """

    dims: int
    spacing_mm: tuple[float, float, float]
    patch: Triple
    batch: int
    features: tuple[int, ...]
    kernels: tuple[Triple, ...]
    strides: tuple[Triple, ...]
    convs_per_stage: tuple[int, ...]
    normalisation: Normalisation
    separate_z: bool
    median_shape: Triple
    conventions: Conventions = OWN
    labels: Literal["linear", "nearest"] = "linear"
    context: int = 0
    inplane: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        """Image channels of the network: the slice and its neighbours."""
        return 1 + 2 * self.context

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, with the format's number."""
        table = {key: _listed(value) for key, value in asdict(self).items()}
        if self.conventions == OWN:
            del table["conventions"]
        if self.labels == "linear":
            del table["labels"]
        for key in ("context", "inplane"):
            if not table[key]:
                del table[key]
        return {"format": FORMAT, **table}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Plan:
        """The plan that ``to_json`` wrote.

        Raises:
            ModelError: another format, or keys missing.
        """
        if table.get("format") != FORMAT:
            raise ModelError(f"a plan of format {table.get('format')!r}", wanted=f"format {FORMAT}", fix="plan again")
        try:
            values = {key: _tupled(table[key]) for key in cls.__dataclass_fields__ if key not in _OPTIONAL}
            own = {"normalisation": Normalisation(**table["normalisation"]), "labels": table.get("labels", "linear")}
            own |= {"context": table.get("context", 0), "inplane": _tupled(table.get("inplane", []))}
            return cls(**{**values, **own, "conventions": Conventions.from_json(table.get("conventions", {}))})
        except (KeyError, TypeError) as error:
            raise ModelError(f"a plan that cannot be read ({error})", fix="plan again") from None


@dataclass(frozen=True)
class _Topology:
    kernels: tuple[Triple, ...]
    strides: tuple[Triple, ...]
    divisor: Triple


def make_plan(fingerprint: Fingerprint, options: PrepareOptions, scheme: LabelScheme, encoder: Encoder = PLAIN) -> Plan:
    """The plan for a data set.

    Args:
        fingerprint: of the cases to train on.
        options: the user's wishes; zeros and empty lists are decided here.
        scheme: for the number of classes.
        encoder: what the network costs, for a patch and batch that fit the memory.

    Raises:
        RecipeError: wishes that contradict each other or cannot be met, each with what would work.
    """
    check_options(options)
    options = replace(options, patch=options.patch or options.inplane)
    spacing = _target_spacing(fingerprint, options)
    shapes = [
        (case.shape[0], *_pair(options.inplane))
        if options.inplane
        else _shape_at(case.shape, case.spacing_mm, spacing, options.dims)
        for case in fingerprint.cases
    ]
    median = _triple(int(n) for n in np.median(shapes, axis=0))

    def memory(patch: Triple, batch: int) -> float:
        strides = _topology(spacing, patch, options.dims).strides
        features = _features(strides, options)
        return memory_bytes(patch, batch, features, strides, scheme.class_count, encoder, options.memory_gb)

    if options.patch:
        patch = _given_patch(options, spacing)
    else:
        patch = _largest_patch(spacing, median, options, lambda p: memory(p, _fitting_batch(options)))
    topology = _topology(spacing, patch, options.dims)
    if len(topology.strides) < 2:
        raise RecipeError(
            f"a patch of {list(patch)} voxels cannot be halved once, so that no U-Net fits it",
            wanted="at least 8 voxels along two axes",
            fix="give a larger prepare.patch or a finer prepare.spacing_mm",
        )
    batch = options.batch or _batch(memory(patch, 1), patch, float(np.prod(shapes, axis=1).sum()), options, encoder)
    if memory(patch, batch) > options.memory_gb * 1e9 * 1.2:
        log.warning(
            "patch %s at batch %d needs about %.1f GB, more than prepare.memory_gb = %g",
            list(patch), batch, memory(patch, batch) / 1e9, options.memory_gb,
        )  # fmt: skip
    return Plan(
        dims=options.dims,
        spacing_mm=spacing,
        patch=patch,
        batch=batch,
        features=_features(topology.strides, options),
        kernels=topology.kernels,
        strides=topology.strides,
        convs_per_stage=(CONVS,) * len(topology.strides),
        normalisation=planned_normalisation(fingerprint, options),
        separate_z=is_anisotropic(spacing),
        median_shape=median,
        labels=options.labels,
        context=options.context,
        inplane=options.inplane,
    )


def is_anisotropic(spacing_mm: Sequence[float]) -> bool:
    """Whether slices (axis D) lie more than three times as far apart as pixels in them."""
    return spacing_mm[0] > ANISOTROPY * max(spacing_mm[1:])


def check_options(options: PrepareOptions) -> None:
    """Refuse, before any scan is read, wishes that no data can meet.

    Raises:
        RecipeError: naming the key, what was found, what is wanted.
    """
    lengths = (3,) if options.dims == 3 else (2, 3)
    for name, values in (("spacing_mm", options.spacing_mm), ("patch", options.patch)):
        if values and (len(values) not in lengths or not min(values) > 0):
            example = {"spacing_mm": "1.5", "patch": "128"}[name]
            raise RecipeError(
                f"prepare.{name} = {list(values)}",
                wanted=f"{lengths[0]} numbers above 0 in the order {'D, H, W' if options.dims == 3 else 'H, W'}",
                fix=f"e.g. [{', '.join([example] * lengths[0])}], or leave it out",
            )
    if options.dims == 2 and len(options.patch) == 3 and options.patch[0] != 1:
        raise RecipeError(f"prepare.patch = {list(options.patch)} in 2D", wanted="[H, W] or [1, H, W]")
    if options.batch < 0:
        raise RecipeError(f"prepare.batch = {options.batch}", wanted="at least 1, or 0 to decide from memory_gb")
    if not 0 < options.memory_gb < float("inf"):
        raise RecipeError(f"prepare.memory_gb = {options.memory_gb}", wanted="a number above 0")
    if not 1 <= options.base_features <= options.max_features:
        raise RecipeError(
            f"prepare.base_features = {options.base_features} and max_features = {options.max_features}",
            wanted="1 <= base_features <= max_features",
        )
    check_intensities(options)
    check_slices(options)


def _target_spacing(fingerprint: Fingerprint, options: PrepareOptions) -> tuple[float, float, float]:
    spacings = np.array([case.spacing_mm for case in fingerprint.cases])
    target = np.median(spacings, axis=0)
    if options.inplane:
        extents = np.median([np.multiply(case.shape, case.spacing_mm) for case in fingerprint.cases], axis=0)
        return _mm((target[0], *(extents[1:] / options.inplane)))
    if options.spacing_mm:
        target[-len(options.spacing_mm) :] = options.spacing_mm
        return _mm(target)
    size = np.median([case.shape for case in fingerprint.cases], axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    finest_allowed = max(target[others])
    if target[coarse] > ANISOTROPY * finest_allowed and size[coarse] * ANISOTROPY < min(size[others]):
        target[coarse] = max(np.percentile(spacings[:, coarse], 10), finest_allowed)
    return _mm(target)


def _shape_at(shape: Triple, old_mm: Sequence[float], new_mm: Sequence[float], dims: int) -> Triple:
    """As ``Grid.respaced`` counts; in 2D the slices stay."""
    new = _triple(max(1, int(np.round(n * o / s))) for n, o, s in zip(shape, old_mm, new_mm, strict=True))
    return (shape[0], *new[1:]) if dims == 2 else new


def _topology(spacing_mm: Sequence[float], patch: Triple, dims: int) -> _Topology:
    """Where to halve and where kernels are flat, stage by stage."""
    axes = (1, 2) if dims == 2 else (0, 1, 2)
    size, spacing = list(patch), list(spacing_mm)
    kernel = [1, 1, 1]
    kernels: list[Triple] = []
    strides: list[Triple] = [(1, 1, 1)]
    while True:
        large = [axis for axis in axes if size[axis] >= 2 * _LEAST_EDGE]
        halved = [axis for axis in large if spacing[axis] < 2 * min(spacing[a] for a in large)]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * _LEAST_EDGE):
            break
        finest = min(spacing[axis] for axis in axes)
        kernel = [3 if axis in axes and (k == 3 or spacing[axis] < 2 * finest) else 1 for axis, k in enumerate(kernel)]
        kernels.append(_triple(kernel))
        strides.append(_triple(2 if axis in halved else 1 for axis in range(3)))
        for axis in halved:
            size[axis] = -(-size[axis] // 2)
            spacing[axis] *= 2
    kernels.append(_triple(3 if axis in axes else 1 for axis in range(3)))
    return _Topology(tuple(kernels), tuple(strides), _triple(int(n) for n in np.prod(strides, axis=0)))


def _largest_patch(
    spacing_mm: Sequence[float], median: Triple, options: PrepareOptions, memory: Callable[[Triple], float]
) -> Triple:
    axes = [1, 2] if options.dims == 2 else [0, 1, 2]
    edge = 2048 if options.dims == 2 else 256
    inverse = 1 / np.array(spacing_mm)[axes]
    ideal = np.round(inverse * edge / np.prod(inverse) ** (1 / len(axes)))
    start = np.ones(3, int)
    start[axes] = np.minimum(ideal, np.array(median)[axes])
    patch = np.array(_padded(_triple(start), _topology(spacing_mm, _triple(start), options.dims).divisor))
    while memory(_triple(patch)) > options.memory_gb * 1e9:
        for axis in sorted(axes, key=lambda a: (-patch[a] / median[a], -a)):
            # the divisor after the step counts: near a power of two a smaller patch has one halving less
            tried = patch.copy()
            tried[axis] -= _topology(spacing_mm, _triple(patch), options.dims).divisor[axis]
            if tried[axis] < 1:
                continue
            step = _topology(spacing_mm, _triple(tried), options.dims).divisor[axis]
            if patch[axis] - step >= 2 * _LEAST_EDGE:
                patch[axis] -= step
                break
        else:
            raise RecipeError(
                f"prepare.memory_gb = {options.memory_gb}: even the smallest patch {patch.tolist()} needs about "
                f"{memory(_triple(patch)) / 1e9:.2g} GB with {options.base_features} base features",
                fix="give more memory_gb, fewer base_features or a smaller batch",
            )
        patch = np.array(_padded(_triple(patch), _topology(spacing_mm, _triple(patch), options.dims).divisor))
    return _triple(patch)


def _given_patch(options: PrepareOptions, spacing_mm: Sequence[float]) -> Triple:
    patch = _triple((1, *options.patch[-2:]) if options.dims == 2 else options.patch)
    divisor = _topology(spacing_mm, patch, options.dims).divisor
    if _padded(patch, divisor) == patch:
        return patch
    ladders = [sorted({n, *(k * 2**p for p in range(1, 9) for k in (n // 2**p, n // 2**p + 1) if k)}) for n in patch]
    works = (
        _triple(other)
        for other in itertools.product(*ladders)
        if _padded(_triple(other), _topology(spacing_mm, _triple(other), options.dims).divisor) == other
        and (options.dims == 3 or other[0] == 1)
    )
    nearest = min(works, key=lambda other: (sum(abs(a - b) for a, b in zip(other, patch, strict=True)), other))
    shown = slice(1, None) if options.dims == 2 else slice(None)
    raise RecipeError(
        f"prepare.patch = {list(options.patch)} cannot be halved as often as the network does",
        wanted=f"multiples of {list(divisor)[shown]} in the order {'H, W' if options.dims == 2 else 'D, H, W'}",
        fix=f"the nearest that works is {list(nearest)[shown]}",
    )


def _fitting_batch(options: PrepareOptions) -> int:
    return options.batch or REFERENCE_BATCH[options.dims]


def _batch(memory_of_one: float, patch: Triple, voxels: float, options: PrepareOptions, encoder: Encoder) -> int:
    fits = int(options.memory_gb * 1e9 / memory_of_one)
    share = round(encoder.share * voxels / math.prod(patch))
    return max(min(fits, share), _LEAST_BATCH)


def _features(strides: Sequence[Triple], options: PrepareOptions) -> tuple[int, ...]:
    return tuple(min(options.max_features, options.base_features * 2**stage) for stage in range(len(strides)))


def _padded(patch: Triple, divisor: Triple) -> Triple:
    return _triple(-(-n // d) * d for n, d in zip(patch, divisor, strict=True))


def _triple(values: Iterable[Any]) -> Triple:
    a, b, c = (int(v) for v in values)
    return a, b, c


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[1]


def _mm(values: Iterable[Any]) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
