"""LOGITS + TRUTH -> ONE NUMBER, region by region: the overlap family, and the distance to the true surface.

Comes in: logits (B, K, N) (for ``boundary`` (B, K, ...) with the space as it is), class indices. Goes out: a scalar of
the logits' type. Knows no resolutions and no options' origin. Legend: B batch, K classes (0 is background), N voxels.

Sums over a class run under masks, without a one-hot array: a third of the memory, and they are pairwise, thus exact
and repeatable.
"""

from __future__ import annotations

import edt
import numpy as np
import torch

from hilum.training._overlap import Sums, away_from_one, dice_index, focal_power, tversky_index
from hilum.training.ranks import over_ranks


def soft_dice(
    logits_BKN: torch.Tensor, truth_BN: torch.Tensor, *, batch_dice: bool = True, smooth: float = 1e-5
) -> torch.Tensor:
    """One minus the mean soft Dice of the foreground classes (Milletari et al. 2016; nnU-Net's form).

    ``(2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)`` with the softmax p and the one-hot truth t.

    Args:
        logits_BKN: logits.
        truth_BN: class indices.
        batch_dice: sums run over the whole batch, so that a class which is absent from one patch is no lost cause
            (its Dice there would be 0 whatever the network does); False scores each patch by itself.
        smooth: keeps empty classes from dividing by zero.
    """
    return dice_of(logits_BKN.softmax(1), truth_BN, batch_dice, smooth)


def batch_dice(logits_BKN: torch.Tensor, truth_BN: torch.Tensor, *, smooth: float = 1e-5) -> torch.Tensor:
    """``soft_dice`` with sums over the whole batch, said by name."""
    return dice_of(logits_BKN.softmax(1), truth_BN, True, smooth)


def tversky(
    logits_BKN: torch.Tensor,
    truth_BN: torch.Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    batch_dice: bool = True,
    smooth: float = 1e-5,
) -> torch.Tensor:
    """One minus the mean Tversky index of the foreground classes (Salehi et al. 2017, arXiv 1706.05721, equation 2).

    ``TP / (TP + alpha FP + beta FN)``; alpha = beta = 1/2 is Dice.

    Args:
        logits_BKN: logits.
        truth_BN: class indices.
        alpha: what a false positive weighs.
        beta: what a false negative weighs; more than alpha finds more of small lesions.
        batch_dice: as for ``soft_dice``.
        smooth: as for ``soft_dice``.
    """
    return 1 - tversky_index(_sums(logits_BKN.softmax(1), truth_BN, 1), alpha, beta, batch_dice, smooth).mean()


def focal_tversky(
    logits_BKN: torch.Tensor,
    truth_BN: torch.Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    batch_dice: bool = True,
    smooth: float = 1e-5,
) -> torch.Tensor:
    """Mean of ``(1 - Tversky index)^(1 / gamma)`` (Abraham and Khan 2019, arXiv 1810.07842, equation 4).

    A gamma above 1 turns to classes that are nearly right, one below 1 to those that are far off. The paper calls the
    weight of false negatives alpha; here it is beta, as in ``tversky``.
    """
    index = tversky_index(_sums(logits_BKN.softmax(1), truth_BN, 1), alpha, beta, batch_dice, smooth)
    return focal_power(index, gamma)


def generalised_dice(logits_BKN: torch.Tensor, truth_BN: torch.Tensor, *, smooth: float = 1e-5) -> torch.Tensor:
    """``1 - 2 sum_k(w_k sum(p t)) / sum_k(w_k (sum(p) + sum(t)))`` with ``w_k = 1 / sum(t_k)^2``.

    Sudre et al. 2017 (arXiv 1707.03237), section 2: over all classes, background included, and the whole batch. A class
    that the batch does not hold has no weight by this formula (it is infinite) and gets that of a single voxel.
    """
    both_BK, guess_BK, truth_BK = _sums(logits_BKN.softmax(1), truth_BN, 0)
    both_K, guess_K, truth_K = over_ranks(both_BK, guess_BK, truth_BK)
    weight_K = truth_K.clamp_min(1.0) ** -2
    shared = (weight_K * both_K).sum()
    return 1 - (2 * shared + smooth) / ((weight_K * (guess_K + truth_K)).sum() + smooth)


def boundary(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean over voxels and foreground classes of ``phi p``, phi the signed distance (voxels) to the true surface.

    Kervadec et al. 2019 (arXiv 1812.07032), equation 5: phi is negative inside. A class that a patch does not hold, or
    that fills it, has no surface there and counts 0. The value may be negative, and is no loss to start from: the paper
    adds it to a regional one (``loss = "sum"``). Distances are computed on the CPU, at each step anew.

    Args:
        logits: (B, K, ...) with the space as it is.
        truth: (B, ...) class indices.
    """
    phi = torch.from_numpy(np.stack([_signed_distances(x, logits.shape[1]) for x in truth.cpu().numpy()]))
    return (logits.softmax(1)[:, 1:] * phi.to(logits)).mean()


def unified_focal_tversky_term(
    p_BKN: torch.Tensor, truth_BN: torch.Tensor, delta: float, gamma: float, asymmetric: bool, smooth: float
) -> torch.Tensor:
    """The regions' part of the unified focal loss (see ``losses.unified_focal``)."""
    away_K = away_from_one(tversky_index(_sums(p_BKN, truth_BN, 0), 1 - delta, delta, True, smooth))
    power_K = away_K ** (1 - gamma)
    return torch.cat((away_K[:1] if asymmetric else power_K[:1], power_K[1:])).mean()


def dice_of(p_BKN: torch.Tensor, truth_BN: torch.Tensor, batch_dice: bool, smooth: float) -> torch.Tensor:
    """One minus the mean soft Dice of the foreground classes, from probabilities."""
    return 1 - dice_index(_sums(p_BKN, truth_BN, 1), batch_dice, smooth).mean()


def _sums(p_BKN: torch.Tensor, truth_BN: torch.Tensor, first: int) -> Sums:
    """For the classes from ``first``: sums of p where the class is, of p, and of voxels where it is; each (B, K)."""
    both, truth = [], []
    for k in range(first, p_BKN.shape[1]):
        mask_BN = truth_BN == k
        both.append(torch.where(mask_BN, p_BKN[:, k], 0.0).sum(1))
        truth.append(mask_BN.sum(1))
    return torch.stack(both, 1), p_BKN[:, first:].sum(2), torch.stack(truth, 1).to(p_BKN.dtype)


def _signed_distances(truth: np.ndarray, classes: int) -> np.ndarray:
    """(K - 1, ...) float32: voxels to each class's nearest; inside, 1 less than to the nearest other, negative."""
    phi = np.zeros((classes - 1, *truth.shape), np.float32)
    for k in range(1, classes):
        inside = truth == k
        if inside.any() and not inside.all():
            threads = torch.get_num_threads()
            phi[k - 1] = np.where(inside, 1 - edt.edt(inside, parallel=threads), edt.edt(~inside, parallel=threads))
    return phi
