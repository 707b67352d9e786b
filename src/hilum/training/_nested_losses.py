"""LOGITS + TRUTH -> ONE NUMBER for networks of nested regions: each output is a yes or no of its own.

Comes in: logits (B, R, N), truth (B, R, N) of zeros and ones. Goes out: a scalar of the logits' type. Knows no
resolutions and no options' origin. Legend: B batch, R regions (none is background), N voxels; p is the logistic
function of a logit. The formulas are those of ``_overlap`` and ``_voxel_losses``, with p in the softmax's place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from hilum.training._overlap import Sums, dice_index, focal_power, tversky_index


def bce(logits_BRN: torch.Tensor, truth_BRN: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over regions and voxels."""
    return F.binary_cross_entropy_with_logits(logits_BRN, truth_BRN)


def soft_dice(
    logits_BRN: torch.Tensor, truth_BRN: torch.Tensor, *, batch_dice: bool = True, smooth: float = 1e-5
) -> torch.Tensor:
    """One minus the mean soft Dice of the regions."""
    return 1 - dice_index(_sums(logits_BRN, truth_BRN), batch_dice, smooth).mean()


def batch_dice(logits_BRN: torch.Tensor, truth_BRN: torch.Tensor, *, smooth: float = 1e-5) -> torch.Tensor:
    """``soft_dice`` with sums over the whole batch, said by name."""
    return soft_dice(logits_BRN, truth_BRN, smooth=smooth)


def dice_bce(
    logits_BRN: torch.Tensor,
    truth_BRN: torch.Tensor,
    *,
    batch_dice: bool = True,
    smooth: float = 1e-5,
    bce_weight: float = 1.0,
    dice_weight: float = 1.0,
) -> torch.Tensor:
    """Both, weighted: what nnU-Net v2 trains regions with."""
    dice = soft_dice(logits_BRN, truth_BRN, batch_dice=batch_dice, smooth=smooth)
    return bce_weight * bce(logits_BRN, truth_BRN) + dice_weight * dice


def tversky(
    logits_BRN: torch.Tensor,
    truth_BRN: torch.Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    batch_dice: bool = True,
    smooth: float = 1e-5,
) -> torch.Tensor:
    """One minus the mean Tversky index of the regions; beta weighs false negatives."""
    return 1 - tversky_index(_sums(logits_BRN, truth_BRN), alpha, beta, batch_dice, smooth).mean()


def focal_tversky(
    logits_BRN: torch.Tensor,
    truth_BRN: torch.Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    batch_dice: bool = True,
    smooth: float = 1e-5,
) -> torch.Tensor:
    """Mean of ``(1 - Tversky index)^(1 / gamma)``."""
    return focal_power(tversky_index(_sums(logits_BRN, truth_BRN), alpha, beta, batch_dice, smooth), gamma)


def focal(logits_BRN: torch.Tensor, truth_BRN: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    """Mean of ``-(1 - p_t)^gamma log p_t`` over regions and voxels, p_t the probability of what is true."""
    entropy = F.binary_cross_entropy_with_logits(logits_BRN, truth_BRN, reduction="none")
    return ((1 - (-entropy).exp()).clamp_min(torch.finfo(entropy.dtype).eps) ** gamma * entropy).mean()


NESTED: dict[str, Callable[..., torch.Tensor]] = {
    "ce": bce,
    "dice": soft_dice,
    "batch_dice": batch_dice,
    "dice_ce": dice_bce,
    "dice_bce": dice_bce,
    "tversky": tversky,
    "focal": focal,
    "focal_tversky": focal_tversky,
}


def _sums(logits_BRN: torch.Tensor, truth_BRN: torch.Tensor) -> Sums:
    """Sums of p where the region is, of p, and of voxels where it is; each (B, R)."""
    p_BRN = logits_BRN.sigmoid()
    return (p_BRN * truth_BRN).sum(2), p_BRN.sum(2), truth_BRN.sum(2)
