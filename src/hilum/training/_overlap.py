"""THREE SUMS -> ONE INDEX: Dice and Tversky, written once for softmax classes and for nested regions.

Comes in: for each class or region the sums of p where it is, of p, and of the voxels where it is, each (B, K). Goes
out: indices, 1 for a perfect prediction: (K) over the batch and all ranks, or (B, K). Knows no logits.
"""

from __future__ import annotations

import torch

from hilum.training.ranks import over_ranks

Sums = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def dice_index(sums_BK: Sums, batch_dice: bool, smooth: float) -> torch.Tensor:
    """``(2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)`` (Milletari et al. 2016; nnU-Net's form)."""
    both, guess, truth = _gathered(sums_BK, batch_dice)
    return (2 * both + smooth) / (guess + truth + smooth)


def tversky_index(sums_BK: Sums, alpha: float, beta: float, batch_dice: bool, smooth: float) -> torch.Tensor:
    """``TP / (TP + alpha FP + beta FN)`` (Salehi et al. 2017, arXiv 1706.05721, equation 2)."""
    both, guess, truth = _gathered(sums_BK, batch_dice)
    return (both + smooth) / (both + alpha * (guess - both) + beta * (truth - both) + smooth)


def focal_power(index: torch.Tensor, gamma: float) -> torch.Tensor:
    """Mean of ``(1 - index)^(1 / gamma)`` (Abraham and Khan 2019, arXiv 1810.07842, equation 4)."""
    return (away_from_one(index) ** (1 / gamma)).mean()


def away_from_one(index: torch.Tensor) -> torch.Tensor:
    """``1 - index``, never quite 0: a power below 1 of an exact 0 has an infinite slope."""
    return (1 - index).clamp_min(torch.finfo(index.dtype).eps)


def _gathered(sums_BK: Sums, batch_dice: bool) -> Sums:
    if not batch_dice:
        return sums_BK
    both, guess, truth = over_ranks(*sums_BK)
    return both, guess, truth
