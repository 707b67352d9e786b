"""LOGITS + TRUTH -> ONE NUMBER, voxel by voxel: the cross-entropy family.

Comes in: logits (B, K, N), class indices (B, N). Goes out: a scalar of the logits' type. Knows no resolutions and no
options' origin. Legend: B batch, K classes (0 is background), N voxels; p is the softmax, p_t the true class's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def cross_entropy(
    logits_BKN: torch.Tensor, truth_BN: torch.Tensor, *, class_weights: Sequence[float] | None = None
) -> torch.Tensor:
    """Mean cross-entropy over voxels; with class weights, the mean weighted by each voxel's true class."""
    return F.cross_entropy(logits_BKN, truth_BN, _tensor(class_weights, logits_BKN))


def weighted_cross_entropy(
    logits_BKN: torch.Tensor, truth_BN: torch.Tensor, *, weights: Sequence[float] = ()
) -> torch.Tensor:
    """Mean cross-entropy weighted by each voxel's true class.

    Args:
        logits_BKN: logits.
        truth_BN: class indices.
        weights: K numbers; ``make_loss`` puts the training set's inverse frequencies here if the recipe has none.
    """
    return F.cross_entropy(logits_BKN, truth_BN, _tensor(weights, logits_BKN))


def focal(
    logits_BKN: torch.Tensor,
    truth_BN: torch.Tensor,
    *,
    gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
) -> torch.Tensor:
    """Mean of ``-w_t (1 - p_t)^gamma log p_t``: cross-entropy that lets easy voxels rest.

    Lin et al. 2017 (arXiv 1708.02002), equation 5, with a class weight for their alpha.
    """
    log_p_BN = -F.cross_entropy(logits_BKN, truth_BN, reduction="none")
    loss_BN = -(((1 - log_p_BN.exp()).clamp_min(_tiny(log_p_BN))) ** gamma) * log_p_BN
    weight = _tensor(class_weights, logits_BKN)
    return loss_BN.mean() if weight is None else (weight[truth_BN] * loss_BN).mean()


def top_k(
    logits_BKN: torch.Tensor,
    truth_BN: torch.Tensor,
    *,
    share: float = 0.1,
    class_weights: Sequence[float] | None = None,
) -> torch.Tensor:
    """Mean cross-entropy of the hardest voxels of the batch (Wu et al. 2016, arXiv 1605.06885, section 3.1).

    Args:
        logits_BKN: logits.
        truth_BN: class indices.
        share: of the voxels, above 0 to 1; at least one is taken.
        class_weights: K numbers, multiplied to each voxel's cross-entropy.
    """
    loss_BN = F.cross_entropy(logits_BKN, truth_BN, _tensor(class_weights, logits_BKN), reduction="none")
    return loss_BN.flatten().topk(max(1, round(share * loss_BN.numel()))).values.mean()


def binary_cross_entropy(logits_BKN: torch.Tensor, truth_BN: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of every class against the rest, from the logistic function of each logit.

    The background is a class too: so the largest logit is the likeliest class, as inference takes it.
    """
    truth_BKN = F.one_hot(truth_BN, logits_BKN.shape[1]).movedim(-1, 1).to(logits_BKN.dtype)
    return F.binary_cross_entropy_with_logits(logits_BKN, truth_BKN)


def unified_focal_term(
    log_p_BKN: torch.Tensor, truth_BN: torch.Tensor, delta: float, gamma: float, asymmetric: bool
) -> torch.Tensor:
    """The voxels' part of the unified focal loss (see ``losses.unified_focal``)."""
    log_t_BN = log_p_BKN.gather(1, truth_BN[:, None])[:, 0]
    calm_BN = (1 - log_t_BN.exp()).clamp_min(_tiny(log_t_BN)) ** gamma
    rare_BN = truth_BN > 0
    modulated = -(1 - delta) * calm_BN * log_t_BN
    return torch.where(rare_BN, -delta * (1.0 if asymmetric else calm_BN) * log_t_BN, modulated).mean()


def _tensor(weights: Sequence[float] | None, like: torch.Tensor) -> torch.Tensor | None:
    return None if weights is None else like.new_tensor(weights)


def _tiny(like: torch.Tensor) -> float:
    # a power below 1 of an exact 0 has an infinite slope
    return torch.finfo(like.dtype).eps
