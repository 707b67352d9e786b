"""LOGITS + TRUTH -> ONE NUMBER: every loss by name, alone or summed, at one or several resolutions.

Comes in: logits (B, K, ...) or a list of them, finest first, and class indices (B, ...) of the finest resolution.
Goes out: a scalar in fp32, however short the numbers were in which the network computed. Knows no network and no
labels by name. Legend: B batch, K classes (0 is background), N voxels.

A loss is a function (``_voxel_losses``, ``_region_losses``, or here what is made of both) and a row in ``LOSSES``;
``make_loss`` binds its options and adds deep supervision. A dotted name is anybody's own function of (logits (B, K, N),
truth (B, N)), or of tensors with the space as it is if the function has an attribute ``spatial`` that is true.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional as F

from hilum import plugins
from hilum.errors import RecipeError
from hilum.labels import LabelScheme
from hilum.training._nested_losses import NESTED
from hilum.training._region_losses import (
    batch_dice,
    boundary,
    dice_of,
    focal_tversky,
    generalised_dice,
    soft_dice,
    tversky,
    unified_focal_tversky_term,
)
from hilum.training._voxel_losses import (
    binary_cross_entropy,
    cross_entropy,
    focal,
    top_k,
    unified_focal_term,
    weighted_cross_entropy,
)

Logits = torch.Tensor | Sequence[torch.Tensor]


class Loss(Protocol):
    """What ``make_loss`` gives."""

    def __call__(self, logits: Logits, truth: torch.Tensor) -> torch.Tensor:
        """A scalar in fp32 to be made small."""
        ...


def dice_and_cross_entropy(
    logits_BKN: torch.Tensor,
    truth_BN: torch.Tensor,
    *,
    batch_dice: bool = True,
    smooth: float = 1e-5,
    ce_weight: float = 1.0,
    dice_weight: float = 1.0,
    class_weights: Sequence[float] | None = None,
) -> torch.Tensor:
    """Both, weighted; ``class_weights`` act on the cross-entropy."""
    log_p_BKN = logits_BKN.log_softmax(1)
    weight = None if class_weights is None else logits_BKN.new_tensor(class_weights)
    entropy = F.nll_loss(log_p_BKN, truth_BN, weight)
    return ce_weight * entropy + dice_weight * dice_of(log_p_BKN.exp(), truth_BN, batch_dice, smooth)


def dice_and_binary_cross_entropy(
    logits_BKN: torch.Tensor,
    truth_BN: torch.Tensor,
    *,
    batch_dice: bool = True,
    smooth: float = 1e-5,
    bce_weight: float = 1.0,
    dice_weight: float = 1.0,
) -> torch.Tensor:
    """Both, weighted, each class against the rest: probabilities are the logistic function of each logit."""
    entropy = binary_cross_entropy(logits_BKN, truth_BN)
    return bce_weight * entropy + dice_weight * dice_of(logits_BKN.sigmoid(), truth_BN, batch_dice, smooth)


def unified_focal(
    logits_BKN: torch.Tensor,
    truth_BN: torch.Tensor,
    *,
    weight: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    asymmetric: bool = True,
    smooth: float = 1e-5,
) -> torch.Tensor:
    """Focal and focal Tversky with one set of numbers (Yeung et al. 2022, doi:10.1016/j.compmedimag.2021.102026).

    ``weight`` times the voxels' part plus the rest times the regions' part. Voxels: the mean of
    ``-delta (1 - p_t)^gamma log p_t`` where the truth is a foreground class and of
    ``-(1 - delta) (1 - p_t)^gamma log p_t`` where it is background. Regions: the mean over all classes of
    ``(1 - TI)^(1 - gamma)`` with the Tversky index TI of weights delta for false negatives and 1 - delta for false
    positives. Asymmetric: rare classes (all but the background) keep their cross-entropy whole, and the background its
    ``1 - TI``, so that what is rare is enhanced and what is common suppressed. The paper is about one rare class; here
    every foreground class is one.
    """
    log_p_BKN = logits_BKN.log_softmax(1)
    voxels = unified_focal_term(log_p_BKN, truth_BN, delta, gamma, asymmetric)
    regions = unified_focal_tversky_term(log_p_BKN.exp(), truth_BN, delta, gamma, asymmetric, smooth)
    return weight * voxels + (1 - weight) * regions


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "ce": cross_entropy,
    "weighted_ce": weighted_cross_entropy,
    "dice": soft_dice,
    "batch_dice": batch_dice,
    "dice_ce": dice_and_cross_entropy,
    "dice_bce": dice_and_binary_cross_entropy,
    "tversky": tversky,
    "focal": focal,
    "focal_tversky": focal_tversky,
    "generalised_dice": generalised_dice,
    "top_k": top_k,
    "boundary": boundary,
    "unified_focal": unified_focal,
}
# these ask where voxels lie; all others take space as one long row
_SPATIAL = {"boundary"}
_CLASS_WEIGHTS = ("class_weights", "weights")
# bounds that are not "a number of at least 0": lowest, highest, whether the lowest itself is allowed
_BOUNDS: dict[str | tuple[str, str], tuple[float, float, bool]] = {
    "share": (0.0, 1.0, False),
    "delta": (0.0, 1.0, True),
    "weight": (0.0, 1.0, True),
    ("unified_focal", "gamma"): (0.0, 1.0, True),
    ("focal_tversky", "gamma"): (0.0, math.inf, False),
}


def check_loss(name: str, options: Mapping[str, Any], classes: int, nested: bool = False) -> None:
    """Refuse, before anything is computed, a loss that cannot be made; ``nested`` for a network of regions.

    Raises:
        RecipeError: as ``make_loss``.
    """
    for term, _, bound in _terms(name, options, nested):
        known = _known(_function(term, nested))
        for key, value in bound.items():
            _check_option(term, key, value, known, classes)


def make_loss(
    name: str,
    options: Mapping[str, Any],
    classes: int,
    class_counts: Callable[[], Sequence[int]] | None = None,
    regions: torch.Tensor | None = None,
) -> Loss:
    """A loss of the registry with its options bound, over one or several resolutions.

    Args:
        name: of ``LOSSES``, or "sum": the options are then ``terms``, each loss's share, and ``options``, each loss's
            own, e.g. ``{terms = {dice = 1.0, focal = 0.5}, options = {focal = {gamma = 3}}}``.
        options: its keyword arguments. Class weights are K numbers or "inverse_frequency".
        classes: K, to check class weights by.
        class_counts: voxels of each class in the training set, asked for only if the options need them.
        regions: (R, K) booleans, which classes each region holds, for a network of regions: its logits are (B, R, ...),
            and the losses are those of ``_nested_losses``.

    Raises:
        RecipeError: no such loss, an option it does not know, or class weights that are not K positive numbers.
    """
    check_loss(name, options, classes, regions is not None)
    listed = _terms(name, options, regions is not None)
    if regions is None:
        terms = [(share, _bound(term, bound, class_counts)) for term, share, bound in listed]
    else:
        terms = [(share, _nested(term, bound, regions)) for term, share, bound in listed]

    def one(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        logits, truth = logits.float(), truth.long()
        if len(terms) == 1 and terms[0][0] == 1.0:
            return terms[0][1](logits, truth)
        return torch.stack([share * function(logits, truth) for share, function in terms]).sum()

    def loss(logits: Logits, truth: torch.Tensor) -> torch.Tensor:
        if isinstance(logits, torch.Tensor):
            return one(logits, truth)
        scales = [(weight, x) for weight, x in zip(scale_weights(len(logits)), logits, strict=True) if weight]
        parts = [weight * one(x, shrunk(truth, x.shape[2:])) for weight, x in scales]
        return torch.stack(parts).sum()

    return loss


def region_table(scheme: LabelScheme) -> torch.Tensor:
    """(R, K) booleans: which class indices each region of the scheme holds, background first."""
    rows = [[value in region.labels for value in (0, *scheme.values)] for region in scheme.regions]
    return torch.tensor(rows)


def inverse_frequencies(counts: Sequence[int]) -> list[float]:
    """Weights ``N / (K n_k)`` of classes with n_k of N voxels, K of them present: 1 each where all are equally many.

    A class without a voxel weighs 0; no voxel will ever ask for its weight.
    """
    total, present = sum(counts), sum(n > 0 for n in counts)
    return [total / (present * n) if n else 0.0 for n in counts]


def scale_weights(count: int) -> list[float]:
    """1, 1/2, 1/4, ... without the coarsest (where there are several), summing to 1, as nnU-Net v2 has it."""
    raw = [2.0**-i for i in range(count)]
    if count > 1:
        raw[-1] = 0.0
    return [weight / sum(raw) for weight in raw]


def shrunk(truth: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Class indices (B, ...) at a coarser resolution: the voxel nearest to each coarse voxel's centre."""
    if tuple(truth.shape[1:]) == tuple(shape):
        return truth
    steps = [fine // coarse for fine, coarse in zip(truth.shape[1:], shape, strict=True)]
    return truth[(slice(None), *(slice(step // 2, None, step) for step in steps))]


def _terms(name: str, options: Mapping[str, Any], nested: bool = False) -> list[tuple[str, float, dict[str, Any]]]:
    """Losses, shares and own options; one of share 1 unless the loss is a sum."""
    if name != "sum":
        _check_name(name, [*(NESTED if nested else LOSSES), "sum"], "training.loss", nested)
        bound = dict(options)
        return [(name, 1.0, {"weights": "inverse_frequency"} | bound if name == "weighted_ce" else bound)]
    where = "training.loss_options"
    terms, own = options.get("terms"), options.get("options", {})
    unknown = sorted(set(options) - {"terms", "options"})
    if unknown or not isinstance(terms, Mapping) or not terms or not isinstance(own, Mapping):
        raise RecipeError(
            f"loss 'sum' with {dict(options)!r}",
            where=where,
            wanted="terms = {dice = 1.0, focal = 0.5}, and options = {focal = {gamma = 3}} where a loss has some",
        )
    for term, share in terms.items():
        _check_name(term, list(NESTED if nested else LOSSES), f"{where}.terms", nested)
        if not _number(share) or not share > 0 or not math.isfinite(share):
            raise RecipeError(f"{term} = {share!r}", where=f"{where}.terms", wanted="a share above 0")
    for term, table in own.items():
        if term not in terms or not isinstance(table, Mapping):
            raise RecipeError(
                f"{term} = {table!r}", where=f"{where}.options", wanted=f"a table for one of the terms {sorted(terms)}"
            )
    return [(term, float(share), _terms(term, own.get(term, {}), nested)[0][2]) for term, share in terms.items()]


def _bound(
    name: str, options: Mapping[str, Any], class_counts: Callable[[], Sequence[int]] | None
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The function with its options, over logits (B, K, ...) in fp32."""
    bound = dict(options)
    for key in _CLASS_WEIGHTS:
        if isinstance(bound.get(key), str):
            assert class_counts is not None, "the training set's class counts are needed"
            bound[key] = inverse_frequencies(class_counts())
    function = _function(name)
    if name in _SPATIAL or getattr(function, "spatial", False):
        return lambda logits, truth: function(logits, truth, **bound)
    return lambda logits, truth: function(logits.flatten(2), truth.flatten(1), **bound)


def _nested(name: str, options: Mapping[str, Any], regions_RK: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The function with its options, over logits (B, R, ...) and class indices (B, ...)."""
    function = _function(name, nested=True)

    def loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        member_RBN = regions_RK.to(logits.device)[:, truth.flatten(1)]
        return function(logits.flatten(2), member_RBN.transpose(0, 1).to(logits.dtype), **options)

    return loss


def _function(name: str, nested: bool = False) -> Callable[..., torch.Tensor]:
    """The loss of a name of the registry, or anybody's own function by its dotted name or entry point."""
    registry = NESTED if nested else LOSSES
    if name in registry:
        return registry[name]
    wanted = "the dotted name of a function f(logits, truth, *, option=...)"
    found: Callable[..., torch.Tensor] = plugins.load("losses", name, "training.loss", wanted)
    return found


def _known(function: Callable[..., torch.Tensor]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    return {key: p.default for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def _check_name(name: str, known: list[str], where: str, nested: bool) -> None:
    if name in known:
        return
    if plugins.is_own("losses", name):
        _function(name, nested)
    else:
        of = " of regions (network.head = 'regions')" if nested else ""
        wanted = f"one of {sorted([*known, *plugins.names('losses')])}, or the dotted name of your own function"
        raise RecipeError(f"no loss {name!r}{of}", where=where, wanted=wanted)


def _check_option(name: str, key: str, value: Any, known: Mapping[str, Any], classes: int) -> None:
    where = "training.loss_options"
    if key not in known:
        raise RecipeError(f"loss {name!r} has no option {key!r}", where=where, wanted=f"one of {sorted(known)}")
    if name not in LOSSES and name not in NESTED:
        return  # its author knows what it takes
    if key in _CLASS_WEIGHTS:
        listed = isinstance(value, list | tuple) and len(value) == classes and all(_number(x) and x >= 0 for x in value)
        if value != "inverse_frequency" and not (listed and 0 < sum(value) < math.inf):
            raise RecipeError(
                f"{key} = {value!r}",
                where=where,
                wanted=f'{classes} numbers of at least 0, background first, or "inverse_frequency"',
            )
    elif isinstance(known[key], bool):
        if not isinstance(value, bool):
            raise RecipeError(f"{key} = {value!r}", where=where, wanted="true or false")
    else:
        low, high, closed = _BOUNDS.get((name, key), _BOUNDS.get(key, (0.0, math.inf, True)))
        if not _number(value) or not (low <= value <= high) or (value == low and not closed) or value == math.inf:
            most = "" if high == math.inf else f" and at most {high:g}"
            raise RecipeError(
                f"{key} = {value!r}",
                where=where,
                wanted=f"a number {'of at least' if closed else 'above'} {low:g}{most}",
            )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
